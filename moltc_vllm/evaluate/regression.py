"""Metrics of numeric answers and their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from moltc_vllm.evaluate.bootstrap_metrics import Flags, Floats, r2, ratio, square_root
from moltc_vllm.evaluate.metric import AnsweredRow, Metric, compute_metric
from moltc_vllm.tasks import Number


def regression_metrics(kind: Number, answered: Sequence[AnsweredRow]) -> Iterator[Metric]:
    """Compute MAE, RMSE, R2, and how often the intervals of the answers contain the target.

    Args:
        kind: Kind of the task's answers.
        answered: Rows with their answers, at least one.
    """
    target, value = targets_and_values(answered)
    valid = ~np.isnan(value)
    error = np.where(valid, np.abs(target - value), 0.0)
    no_answer = None if valid.any() else "no row was answered"
    constant = no_answer or (None if np.ptp(target[valid]) > 0 else "all targets are equal")
    for name, function, bootstrap_metric, undefined in (
        ("mae", mean_absolute_error, ratio(error, valid), no_answer),
        ("rmse", root_mean_squared_error, square_root(ratio(error**2, valid)), no_answer),
        ("r2", r2_score, r2(target, value, valid), constant),
    ):
        compute = partial(function, target[valid], value[valid])
        rows = int(valid.sum())
        yield compute_metric(name, "left out", rows, compute, bootstrap_metric, undefined)
    inside, has_interval = interval_hits(kind, answered)
    yield compute_metric(
        "interval_hit_rate",
        "left out",
        int(has_interval.sum()),
        inside[has_interval].mean,
        ratio(inside, has_interval),
        None if has_interval.any() else "no answer has an interval",
    )
    yield from _prediction_interval_metrics(target, answered)


def _prediction_interval_metrics(
    target: Floats, answered: Sequence[AnsweredRow]
) -> Iterator[Metric]:
    """Compute the fraction of prediction intervals with the target, and their mean width."""
    low, high, has_ends = prediction_intervals(answered)
    covered = has_ends & (low <= target) & (target <= high)
    width = np.where(has_ends, high - low, 0.0)
    undefined = None if has_ends.any() else "the model has no calibrated intervals"
    for name, numbers in (("interval_coverage", covered), ("mean_interval_width", width)):
        yield compute_metric(
            name,
            "left out",
            int(has_ends.sum()),
            numbers[has_ends].mean,
            ratio(numbers, has_ends),
            undefined,
        )


def targets_and_values(answered: Sequence[AnsweredRow]) -> tuple[Floats, Floats]:
    """Return measured and predicted value of every row; NaN without a prediction."""
    targets = np.array([row.target for row, _ in answered], dtype=np.float64)
    return targets, np.array([answer.value for _, answer in answered], dtype=np.float64)


def interval_hits(kind: Number, answered: Sequence[AnsweredRow]) -> tuple[Flags, Flags]:
    """Return whether each likeliest interval contains the target, and whether there is one.

    See `Number.contains`.
    """
    inside, has_interval = np.zeros((2, len(answered)), dtype=bool)
    for index, (row, answer) in enumerate(answered):
        if answer.likeliest_interval is not None:
            assert isinstance(row.target, float)
            has_interval[index] = True
            inside[index] = kind.contains(answer.likeliest_interval, row.target)
    return inside, has_interval


def prediction_intervals(answered: Sequence[AnsweredRow]) -> tuple[Floats, Floats, Flags]:
    """Return lower and upper end of each prediction interval, and whether an answer has one."""
    low = np.array([answer.low for _, answer in answered], dtype=np.float64)
    high = np.array([answer.high for _, answer in answered], dtype=np.float64)
    return low, high, ~np.isnan(low)
