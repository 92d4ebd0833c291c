"""From answers to an evaluation: counts, metrics with intervals, calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from moltc_vllm.data.dataset import Dataset
from moltc_vllm.evaluate.bootstrap import bootstrap
from moltc_vllm.evaluate.calibration import Bin, calibrate
from moltc_vllm.evaluate.classification import classification_metrics, label_hits
from moltc_vllm.evaluate.metric import (
    Answered,
    Failed,
    Metric,
    confidences,
    parse_failures,
)
from moltc_vllm.evaluate.regression import interval_hits, regression_metrics
from moltc_vllm.evaluate.texts import exact_match, terms_metrics
from moltc_vllm.tasks import Answer, Choice, Number, Task, Terms


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the rows.

    ``rows`` are those of the split, measured or not; ``asked`` of the measured ones were drawn,
    and each of them is in one of the counts after it. ``not_reached`` were not answered before an
    interruption.
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
        """Rows that came back without an answer."""
        return self.unparsed + self.bad_molecules + self.errors


@dataclass(frozen=True, slots=True)
class MetricResult:
    """A value and its 95 % interval; ``reason`` says why something of it is missing.

    ``rows`` are those it is of; ``failed`` is what rows without an answer count as.
    """

    value: float | None
    low: float | None
    high: float | None
    rows: int
    failed: Failed
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether the confidence is the probability of being right, of the rows that have one.

    ``of`` is what it means to be right. The interval of the error lies high rather than low: noise
    in a bin adds to the error, whichever way it goes.
    """

    of: str
    error: MetricResult
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good the answers are."""

    counts: Counts
    metrics: dict[str, MetricResult]
    calibration: Calibration | None

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON; what is not defined is ``None``, never NaN."""
        return asdict(self)


def evaluate(
    task: Task,
    data: Dataset,
    answers: Mapping[int, Answer],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Compare answers with what was measured.

    Args:
        task: What was asked.
        data: What was measured.
        answers: By the number of their row; rows may be missing if the asking was cut off.
        resamples: Of the bootstrap; 0: no intervals.
        seed: Of the bootstrap.
    """
    answered = [Answered(row, answers[row.number]) for row in data.rows if row.number in answers]
    every = list(compute_metrics(task, answered))
    error, bins = _calibration(task, answered) or (None, [])
    drawn = [*every, *([error] if error else [])]
    ends = bootstrap(
        {one.name: one.resampled for one in drawn if one.value is not None and one.rows > 1},
        len(answered),
        resamples=resamples,
        seed=seed,
    )
    calibration = None
    if error is not None:
        of = "accuracy" if isinstance(task.kind, Choice) else "interval_hit_rate"
        calibration = Calibration(of, _metric(error, ends, resamples), tuple(bins))
    metrics = {one.name: _metric(one, ends, resamples) for one in every}
    return Evaluation(_counts(data, answered), metrics, calibration)


def compute_metrics(task: Task, answered: Sequence[Answered]) -> Iterator[Metric]:
    """All metrics of a task; nothing where there are no rows."""
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
    yield parse_failures(answered)


def _calibration(task: Task, answered: Sequence[Answered]) -> tuple[Metric, list[Bin]] | None:
    """None for lists and texts: their confidence is not the probability of being right."""
    confidence = confidences(answered)
    known = confidence == confidence  # not NaN
    if isinstance(task.kind, Choice):
        return calibrate(confidence, label_hits(task.kind, answered), known)
    if isinstance(task.kind, Number):
        inside, named = interval_hits(task.kind, answered)
        return calibrate(confidence, inside, known & named)
    return None


def _metric(
    one: Metric, ends: Mapping[str, tuple[float, float] | None], resamples: int
) -> MetricResult:
    interval = ends.get(one.name)
    reason = one.reason
    if interval is None and reason is None and resamples:
        reason = "one row has no interval" if one.rows == 1 else "most resamples have no value"
    low, high = interval or (None, None)
    return MetricResult(one.value, low, high, one.rows, one.failed, reason)


def _counts(data: Dataset, answered: Sequence[Answered]) -> Counts:
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
