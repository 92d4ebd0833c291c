"""A metric: scikit-learn's value, and the same of many resamples.

A row without an answer (text that could not be read, bad molecule, error) counts as wrong wherever
right and wrong are counted. Where a number or a score is needed it is left out. Every metric says
which.
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

Failed = Literal["wrong", "left out", "counted"]


class Answered(NamedTuple):
    """A row and what came back."""

    row: Row
    answer: Answer


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: Of the metric.
        failed: What rows without an answer count as.
        rows: How many rows it is of.
        value: ``None`` if it is not defined; then ``reason`` says why.
        reason: Of a missing value.
        resampled: The same of many resamples of all rows.
    """

    name: str
    failed: Failed
    rows: int
    value: float | None
    reason: str | None
    resampled: BootstrapMetric


def statistic(
    name: str,
    failed: Failed,
    rows: int,
    function: Callable[[], Any],
    resampled: BootstrapMetric,
    undefined: str | None = None,
) -> Metric:
    """Compute a metric, unless there is a reason why it is not defined."""
    value = math.nan if undefined else float(function())
    if math.isfinite(value):
        return Metric(name, failed, rows, value, None, resampled)
    reason = undefined or "too large for a number"
    return Metric(name, failed, rows, None, reason, resampled)


def parse_failures(answered: Sequence[Answered]) -> Metric:
    """How many of the generated texts could not be read.

    Bad molecules and errors never came to a text; they are left out.
    """
    unparsed = np.array([answer.status == "unparsed" for _, answer in answered])
    text = unparsed | np.array([answer.status == "ok" for _, answer in answered])
    none = None if text.any() else "no text was generated"
    return statistic(
        "parse_failure_rate",
        "counted",
        int(text.sum()),
        lambda: unparsed[text].mean(),
        ratio(unparsed, text),
        none,
    )


def confidences(answered: Sequence[Answered]) -> Floats:
    """Of every answer, NaN where there is none."""
    every = [answer.confidence for _, answer in answered]
    return np.array([math.nan if one is None else one for one in every])
