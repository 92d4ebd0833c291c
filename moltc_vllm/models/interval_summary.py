"""Compiled summary of one distribution over intervals, for engines that answer pair by pair.

`moltc_vllm.tasks.interval_distribution` computes the same for many distributions at once; for a
single one the overhead of its two dozen array operations would be a tenth of the engine's time.

This module imports numba, which is slow: import it only where answers are calibrated.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moltc_vllm.chem.fast.rdkit_pickle import jit
from moltc_vllm.tasks import Number
from moltc_vllm.tasks.interval_distribution import (
    LOWER_LEVEL,
    MIN_HALF_WIDTH,
    UPPER_LEVEL,
    interval_moments,
)


class IntervalSummary(NamedTuple):
    """Summary of a distribution over the intervals of a numeric task.

    Attributes:
        position: Mean position.
        lower: Half width below the mean, in intervals.
        upper: Half width above the mean, in intervals.
        value: Value at the mean position.
        deviation: Root mean squared distance from the value.
        likeliest: Probability of the likeliest interval.
    """

    position: float
    lower: float
    upper: float
    value: float
    deviation: float
    likeliest: float


def summarize_intervals(kind: Number, log_probabilities: NDArray[np.float64]) -> IntervalSummary:
    """Summarize a distribution.

    Args:
        kind: Form of the task's answers.
        log_probabilities: ``[K]`` log-probabilities of the intervals, up to a summand.
    """
    centers, variances = interval_moments(kind)
    position, lower, upper, first, second, likeliest = _summarize(
        log_probabilities, centers, variances, LOWER_LEVEL, UPPER_LEVEL
    )
    value = kind.value_at(position)
    return IntervalSummary(
        position,
        max(position - lower, MIN_HALF_WIDTH),
        max(upper - position, MIN_HALF_WIDTH),
        value,
        math.sqrt(max(second - 2 * value * first + value * value, 0.0)),
        likeliest,
    )


@jit
def _summarize(
    logs: Any, centers: Any, variances: Any, lower_level: float, upper_level: float
) -> Any:
    """Return mean position, two quantiles, first and second moment, and the largest probability."""
    count = len(logs)
    largest = -math.inf
    for log in logs:
        largest = max(largest, log)
    weights = np.empty(count)
    total = position = first = second = 0.0
    for index in range(count):
        weight = math.exp(logs[index] - largest)
        weights[index] = weight
        total += weight
        position += weight * (index + 0.5)
        first += weight * centers[index]
        second += weight * (centers[index] * centers[index] + variances[index])
    lower = upper = float(count)
    cumulative = 0.0
    for index in range(count):
        previous = cumulative
        cumulative += weights[index] / total
        # The last interval has every level that rounding leaves above the sum.
        is_last = index == count - 1
        if previous < lower_level and (cumulative >= lower_level or is_last):
            share = (lower_level - previous) / max(cumulative - previous, 1e-300)
            lower = index + min(share, 1.0)
        if previous < upper_level and (cumulative >= upper_level or is_last):
            share = (upper_level - previous) / max(cumulative - previous, 1e-300)
            upper = index + min(share, 1.0)
    return position / total, lower, upper, first / total, second / total, 1.0 / total
