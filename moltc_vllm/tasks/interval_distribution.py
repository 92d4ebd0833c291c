"""Value, spread and quantiles of distributions over the intervals of a numeric task.

A distribution is a row of probabilities, one for each interval of `Number.intervals`; within an
interval the probability is spread evenly. Quantiles are positions, which count intervals like
`Number.position`, so that intervals of growing width are treated alike.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moltc_vllm.tasks.number import Number

Floats = NDArray[np.float64]

LOWER_LEVEL, UPPER_LEVEL = 0.1, 0.9
"""Levels of the quantiles whose distance from the mean is the width of a distribution."""

MIN_HALF_WIDTH = 0.25
"""Smallest distance from the mean to a quantile, in intervals.

The mean of a skewed distribution may lie beyond a quantile, and a distribution on one interval says
nothing about errors that are smaller than it.
"""


def mean_positions(probabilities: Floats) -> Floats:
    """Return the mean position of each distribution.

    Args:
        probabilities: ``[N, K]`` probabilities of the intervals; rows sum to 1.

    Returns:
        ``[N]`` positions.
    """
    count = probabilities.shape[1]
    positions: Floats = probabilities @ (np.arange(count) + 0.5)
    return positions


def quantile_positions(probabilities: Floats, level: float) -> Floats:
    """Return a quantile of each distribution, interpolated linearly within its interval.

    Args:
        probabilities: ``[N, K]`` probabilities of the intervals; rows sum to 1.
        level: Probability below the quantile, between 0 and 1.

    Returns:
        ``[N]`` positions.
    """
    cumulative = probabilities.cumsum(axis=1)
    # Rounding may leave the last sum below the level.
    index = np.minimum((cumulative < level).sum(axis=1), probabilities.shape[1] - 1)
    rows = np.arange(len(probabilities))
    inside = probabilities[rows, index]
    missing = level - (cumulative[rows, index] - inside)
    share = np.divide(missing, inside, out=np.ones_like(inside), where=inside > 0)
    positions: Floats = index + share.clip(0.0, 1.0)
    return positions


def half_widths(probabilities: Floats, positions: Floats) -> tuple[Floats, Floats]:
    """Return the distance from each mean down to the lower and up to the upper quantile.

    Args:
        probabilities: ``[N, K]`` probabilities of the intervals; rows sum to 1.
        positions: ``[N]`` mean positions.

    Returns:
        Distances in intervals, ``[N]`` each, at least `MIN_HALF_WIDTH`.
    """
    lower = positions - quantile_positions(probabilities, LOWER_LEVEL)
    upper = quantile_positions(probabilities, UPPER_LEVEL) - positions
    return np.maximum(lower, MIN_HALF_WIDTH), np.maximum(upper, MIN_HALF_WIDTH)


def standard_deviations(kind: Number, probabilities: Floats, values: Floats) -> Floats:
    """Return the root mean squared distance of each distribution from a value.

    Args:
        kind: Form of the task's answers.
        probabilities: ``[N, K]`` probabilities of the intervals; rows sum to 1.
        values: ``[N]`` values, in the task's unit.

    Returns:
        ``[N]``, in the task's unit.
    """
    centers, variances = interval_moments(kind)
    # The expanded square would cancel for values that are large compared with the spread.
    distances = centers[None, :] - values[:, None]  # [N, K]
    second = np.einsum("nk,nk->n", probabilities, distances * distances + variances)
    deviations: Floats = np.sqrt(second)
    return deviations


def conformity_scores(
    positions: Floats, target_positions: Floats, widths: tuple[Floats, Floats]
) -> Floats:
    """Return how many half widths each measured value is away from the mean.

    An interval from ``mean - s * lower`` to ``mean + s * upper`` contains the measured value if
    ``s`` is at least the score.

    Args:
        positions: ``[N]`` mean positions.
        target_positions: ``[N]`` positions of the measured values.
        widths: Half widths below and above the mean, ``[N]`` each.

    Source: conformalized quantile regression, Romano et al. 2019, with a factor in place of a
        summand.
    """
    lower, upper = widths
    distance = target_positions - positions
    return np.where(distance < 0, -distance / lower, distance / upper)


@lru_cache(maxsize=256)
def interval_moments(kind: Number) -> tuple[Floats, Floats]:
    """Return center and variance of the part of each interval that lies within the bounds."""
    ends = np.array([kind.clip(*interval) for interval in kind.intervals()])
    return ends.mean(axis=1), (ends[:, 1] - ends[:, 0]) ** 2 / 12
