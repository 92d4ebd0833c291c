"""One metric with its value and its function for bootstrap resamples.

A row without an answer (unparsed text, bad molecule, engine error) counts as wrong in metrics that
count correct and wrong answers. Metrics that need a number or a score leave it out. Each metric
states which rule it applies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from moltc_vllm.data.dataset import Row
from moltc_vllm.evaluate.bootstrap_metrics import BootstrapMetric, Floats, ratio
from moltc_vllm.tasks import Answer

FailureRule = Literal["wrong", "left out", "counted"]
"""Treatment of rows without an answer."""


class AnsweredRow(NamedTuple):
    """A measured row and the engine's answer."""

    row: Row
    answer: Answer


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of all rows.

    Attributes:
        name: Name of the metric.
        failed: Treatment of rows without an answer.
        rows: Number of rows that the metric is computed from.
        value: Value; ``None`` if the metric is undefined.
        reason: Reason for an undefined value.
        bootstrap_metric: The same metric as a function of resamples of all rows.
    """

    name: str
    failed: FailureRule
    rows: int
    value: float | None
    reason: str | None
    bootstrap_metric: BootstrapMetric


def compute_metric(
    name: str,
    failed: FailureRule,
    rows: int,
    function: Callable[[], Any],
    bootstrap_metric: BootstrapMetric,
    undefined: str | None = None,
) -> Metric:
    """Compute a metric, unless it is undefined.

    Args:
        name: Name of the metric.
        failed: Treatment of rows without an answer.
        rows: Number of rows that the metric is computed from.
        function: Function that computes the value, usually scikit-learn's.
        bootstrap_metric: The same metric as a function of resamples.
        undefined: Reason why the metric is undefined; ``None`` if it is defined.
    """
    value = math.nan if undefined else float(function())
    if math.isfinite(value):
        return Metric(name, failed, rows, value, None, bootstrap_metric)
    return Metric(name, failed, rows, None, undefined or "value is not finite", bootstrap_metric)


def parse_failure_rate(answered: Sequence[AnsweredRow]) -> Metric:
    """Compute the fraction of generated texts that could not be parsed.

    Rows with a bad molecule or an engine error have no generated text and are left out.
    """
    unparsed = np.array([answer.status == "unparsed" for _, answer in answered])
    has_text = unparsed | np.array([answer.status == "ok" for _, answer in answered])
    return compute_metric(
        "parse_failure_rate",
        "counted",
        int(has_text.sum()),
        lambda: unparsed[has_text].mean(),
        ratio(unparsed, has_text),
        None if has_text.any() else "no text was generated",
    )


def confidences(answered: Sequence[AnsweredRow]) -> Floats:
    """Return the confidence of every answer, ``[rows]``; NaN where it is missing."""
    values = [answer.confidence for _, answer in answered]
    return np.array([math.nan if value is None else value for value in values])
