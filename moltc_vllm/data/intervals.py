"""The rule that chooses the interval width of a number task from the spread of its data.

This is step 2 of the paper's instructions. The rule has three constants. For any value of
`SPREAD_PER_WIDTH` between 7.03 and 10.06, the train splits of the three solvation sets and of both
wavelengths give the published widths, 0.5 kcal/mol and 10 nm; 8 is near the geometric mean of
these limits. It was not tuned for the other tasks. The valid splits give the same widths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

SPREAD_PER_WIDTH = 8.0
"""Spread divided by width, before the width is rounded to a step of 1, 2, 5, 10, 20, 50, ..."""

MAX_TAIL = 4.0
"""Longest tail for which all intervals have equal widths; the exponential distribution has 3.6."""

FIRST_INTERVAL_SHARE = 0.01
"""Largest fraction of the values in the first interval of a growing scale."""

_NORMAL_IQR = 1.349  # interquartile range of a normal distribution, in standard deviations


@dataclass(frozen=True, slots=True)
class Intervals:
    """Intervals that the rule chooses for some values.

    Attributes:
        width: Width of every interval, or of the first one for scale ``1-2-5``.
        scale: Scale, as in `moltc_vllm.tasks.Number`.
        spread: Standard deviation of the normal distribution with the same interquartile range; the
            standard deviation of the values if more than half of them are equal.
        tail: Distance from the median to the 95th percentile, divided by the distance to the fifth;
            infinite if no value is below the median.
    """

    width: float
    scale: Literal["linear", "1-2-5"]
    spread: float
    tail: float


def choose_intervals(values: Sequence[float]) -> Intervals:
    """Choose intervals for a number task.

    The intervals have equal widths, unless no value is negative and the tail is long, like that of
    lifetimes over seven decades. Then the intervals end at the width times 1, 2, 5, 10, ...

    Args:
        values: Targets of the train split.

    Raises:
        ValueError: If there are no values, one is not finite, or all are equal.
    """
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise ValueError("intervals need finite values, at least one")
    p5, p25, median, p75, p95 = np.percentile(array, (5, 25, 50, 75, 95))
    spread = float(p75 - p25) / _NORMAL_IQR or float(array.std())
    if spread == 0:
        raise ValueError("intervals need values that differ")
    below = float(median - p5)
    tail = float(p95 - median) / below if below > 0 else math.inf
    first = float(np.percentile(array, 100 * FIRST_INTERVAL_SHARE))
    if tail > MAX_TAIL and array.min() >= 0 and first > 0:
        return Intervals(_step_below(first), "1-2-5", spread, tail)
    return Intervals(_nearest_step(spread / SPREAD_PER_WIDTH), "linear", spread, tail)


def _steps_around(value: float) -> list[float]:
    """Return the steps of 1, 2, 5 in the decades around a positive value, in ascending order."""
    decade = math.floor(math.log10(value))
    # Parsed from text, because 5 * 10**-5 is not exactly 5e-05.
    return [
        float(f"{digit}e{power}") for power in range(decade - 1, decade + 2) for digit in (1, 2, 5)
    ]


def _nearest_step(value: float) -> float:
    """Return the step that is nearest on a logarithmic scale."""
    return min(_steps_around(value), key=lambda step: abs(math.log(step / value)))


def _step_below(value: float) -> float:
    """Return the largest step that is not above the value, apart from rounding."""
    return max(step for step in _steps_around(value) if step <= value * (1 + 1e-9))
