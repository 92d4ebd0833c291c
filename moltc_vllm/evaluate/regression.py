"""Metrics of answers that are a number and the interval it is in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import partial

import numpy as np
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from moltc_vllm.evaluate.bootstrap_metrics import Flags, Floats, r2, ratio, root
from moltc_vllm.evaluate.metric import Answered, Metric, statistic
from moltc_vllm.tasks import Number


def regression_metrics(kind: Number, answered: Sequence[Answered]) -> Iterator[Metric]:
    """MAE, RMSE, R2 and how often the true value is in the interval that was named."""
    target, value = values(answered)
    there = ~np.isnan(value)
    true, given = target[there], value[there]
    error = np.where(there, np.abs(target - value), 0.0)
    none = None if there.any() else "no row was answered"
    equal = none or (None if np.ptp(true) > 0 else "all targets are equal")
    for name, function, resampled, undefined in (
        ("mae", mean_absolute_error, ratio(error, there), none),
        ("rmse", root_mean_squared_error, root(ratio(error**2, there)), none),
        ("r2", r2_score, r2(target, value, there), equal),
    ):
        calculate = partial(function, true, given)
        yield statistic(name, "left out", len(true), calculate, resampled, undefined)
    inside, named = interval_hits(kind, answered)
    yield statistic(
        "interval_hit_rate",
        "left out",
        int(named.sum()),
        inside[named].mean,
        ratio(inside, named),
        None if named.any() else "no answer has an interval",
    )


def values(answered: Sequence[Answered]) -> tuple[Floats, Floats]:
    """The true and the answered value of every row, the latter NaN where there is none."""
    target = np.array([row.target for row, _ in answered], dtype=np.float64)
    return target, np.array([answer.value for _, answer in answered], dtype=np.float64)


def interval_hits(kind: Number, answered: Sequence[Answered]) -> tuple[Flags, Flags]:
    """Whether the true value is in the interval of the answer, and whether there is one.

    The value is rounded as it is for training texts, and an interval holds its lower end only,
    as there. One whose ends are equal, as the published texts have them, holds that value.
    """
    inside, named = np.zeros((2, len(answered)), dtype=bool)
    for place, (row, answer) in enumerate(answered):
        if answer.interval is not None:
            assert isinstance(row.target, float)
            lower, upper = answer.interval
            value = float(round(Decimal(repr(row.target)), kind.decimals))
            named[place] = True
            inside[place] = lower <= value < upper or lower == value == upper
    return inside, named
