"""Metrics of numeric answers and their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import partial

import numpy as np
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from moltc_vllm.evaluate.bootstrap_metrics import Flags, Floats, r2, ratio, square_root
from moltc_vllm.evaluate.metric import AnsweredRow, Metric, compute_metric
from moltc_vllm.tasks import Number


def regression_metrics(kind: Number, answered: Sequence[AnsweredRow]) -> Iterator[Metric]:
    """Compute MAE, RMSE, R2 and the fraction of intervals that contain the target.

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


def targets_and_values(answered: Sequence[AnsweredRow]) -> tuple[Floats, Floats]:
    """Return measured and predicted value of every row; NaN without a prediction."""
    targets = np.array([row.target for row, _ in answered], dtype=np.float64)
    return targets, np.array([answer.value for _, answer in answered], dtype=np.float64)


def interval_hits(kind: Number, answered: Sequence[AnsweredRow]) -> tuple[Flags, Flags]:
    """Return whether each answer's interval contains the target, and whether it has an interval.

    As in training texts, the target is rounded and an interval contains its lower end only. An
    interval whose ends are equal, which the published texts have, contains that value.
    """
    inside, has_interval = np.zeros((2, len(answered)), dtype=bool)
    for index, (row, answer) in enumerate(answered):
        if answer.likeliest_interval is not None:
            assert isinstance(row.target, float)
            lower, upper = answer.likeliest_interval
            target = float(round(Decimal(repr(row.target)), kind.decimals))
            has_interval[index] = True
            inside[index] = lower <= target < upper or lower == target == upper
    return inside, has_interval
