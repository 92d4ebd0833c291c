"""Evaluation of answers: counts, metrics with intervals, calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from moltc_vllm.data.dataset import Dataset
from moltc_vllm.evaluate.bootstrap import bootstrap
from moltc_vllm.evaluate.calibration import CalibrationBin, calibrate
from moltc_vllm.evaluate.classification import classification_metrics, label_hits
from moltc_vllm.evaluate.metric import (
    AnsweredRow,
    FailureRule,
    Metric,
    confidences,
    parse_failure_rate,
)
from moltc_vllm.evaluate.regression import interval_hits, regression_metrics
from moltc_vllm.evaluate.texts import exact_match, terms_metrics
from moltc_vllm.tasks import Answer, Choice, Number, Task, Terms


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of rows by outcome.

    Attributes:
        rows: Rows of the split.
        not_measured: Rows without a target.
        measured: Rows with a target.
        asked: Rows to evaluate: all measured ones, or a sample of them. Each of them is in exactly
            one of the following counts.
        answered: Rows with an answer.
        unparsed: Rows whose generated text could not be parsed.
        bad_molecules: Rows with a molecule that cannot be read or encoded.
        errors: Rows with another error of the engine.
        not_reached: Rows without a result because the evaluation stopped.
    """

    rows: int
    not_measured: int
    measured: int
    asked: int
    answered: int
    unparsed: int
    bad_molecules: int
    errors: int
    not_reached: int

    @property
    def failed(self) -> int:
        """Number of evaluated rows without an answer."""
        return self.unparsed + self.bad_molecules + self.errors


@dataclass(frozen=True, slots=True)
class MetricResult:
    """Value of a metric with its 95 % interval.

    Attributes:
        value: Value; ``None`` if it is undefined.
        low: Lower end of the interval; ``None`` without an interval.
        high: Upper end of the interval; ``None`` without an interval.
        rows: Number of rows that the metric is computed from.
        failed: Treatment of rows without an answer.
        reason: Reason for a missing value or interval.
    """

    value: float | None
    low: float | None
    high: float | None
    rows: int
    failed: FailureRule
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Agreement of an answer's confidence with its probability of being correct.

    The interval of the error is biased upward, because noise in a bin adds to the error regardless
    of its sign.

    Attributes:
        of: Name of the metric that defines a correct answer.
        error: Expected calibration error.
        bins: Bins of similar confidence, in ascending order.
    """

    of: str
    error: MetricResult
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        counts: Numbers of rows by outcome.
        metrics: Metrics by name.
        calibration: Calibration; ``None`` for lists and free text.
    """

    counts: Counts
    metrics: dict[str, MetricResult]
    calibration: Calibration | None

    def as_json(self) -> dict[str, Any]:
        """Return plain values for JSON, with ``None`` instead of NaN."""
        return asdict(self)


def evaluate(
    task: Task,
    data: Dataset,
    answers: Mapping[int, Answer],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Compare answers with measured targets.

    Args:
        task: Task of the rows.
        data: Rows with their targets.
        answers: Answers by row number; rows are missing if the evaluation was interrupted.
        resamples: Number of bootstrap resamples; 0 computes no intervals.
        seed: Seed of the bootstrap.
    """
    answered = [AnsweredRow(row, answers[row.number]) for row in data.rows if row.number in answers]
    metrics = list(compute_metrics(task, answered))
    error, bins = _calibration(task, answered) or (None, [])
    intervals = bootstrap(
        {
            metric.name: metric.bootstrap_metric
            for metric in (*metrics, *([error] if error else []))
            if metric.value is not None and metric.rows > 1
        },
        len(answered),
        resamples=resamples,
        seed=seed,
    )
    calibration = None
    if error is not None:
        of = "accuracy" if isinstance(task.kind, Choice) else "interval_hit_rate"
        calibration = Calibration(of, _with_interval(error, intervals, resamples), tuple(bins))
    return Evaluation(
        _counts(data, answered),
        {metric.name: _with_interval(metric, intervals, resamples) for metric in metrics},
        calibration,
    )


def compute_metrics(task: Task, answered: Sequence[AnsweredRow]) -> Iterator[Metric]:
    """Compute all metrics of a task; an empty sequence gives no metrics."""
    if not answered:
        return
    if isinstance(task.kind, Choice):
        yield from classification_metrics(task.kind, answered)
    elif isinstance(task.kind, Number):
        yield from regression_metrics(task.kind, answered)
    elif isinstance(task.kind, Terms):
        yield from terms_metrics(answered)
    else:
        yield exact_match(answered)
    yield parse_failure_rate(answered)


def _calibration(
    task: Task, answered: Sequence[AnsweredRow]
) -> tuple[Metric, list[CalibrationBin]] | None:
    """Compute the calibration error and its bins.

    Lists and texts give ``None``: their confidence is not a probability of being correct.
    """
    confidence = confidences(answered)
    has_confidence = ~np.isnan(confidence)
    if isinstance(task.kind, Choice):
        return calibrate(confidence, label_hits(task.kind, answered), has_confidence)
    if isinstance(task.kind, Number):
        inside, has_interval = interval_hits(task.kind, answered)
        return calibrate(confidence, inside, has_confidence & has_interval)
    return None


def _with_interval(
    metric: Metric, intervals: Mapping[str, tuple[float, float] | None], resamples: int
) -> MetricResult:
    interval = intervals.get(metric.name)
    reason = metric.reason
    if interval is None and reason is None and resamples:
        reason = (
            "no interval for a single row"
            if metric.rows == 1
            else "undefined in most bootstrap resamples"
        )
    low, high = interval or (None, None)
    return MetricResult(metric.value, low, high, metric.rows, metric.failed, reason)


def _counts(data: Dataset, answered: Sequence[AnsweredRow]) -> Counts:
    statuses = [answer.status for _, answer in answered]
    return Counts(
        rows=data.in_split,
        not_measured=data.in_split - data.measured,
        measured=data.measured,
        asked=len(data.rows),
        answered=statuses.count("ok"),
        unparsed=statuses.count("unparsed"),
        bad_molecules=statuses.count("bad_molecule"),
        errors=statuses.count("error"),
        not_reached=len(data.rows) - len(answered),
    )
