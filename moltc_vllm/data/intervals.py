"""How wide the intervals of a number task are: a rule on the data's own spread.

Step 2 of the paper's instructions. The rule has three constants. With the first one between 7.03
and 10.06 the spreads of the train parts of the three solvation sets and of both wavelengths give
the published widths, 0.5 kcal/mol and 10 nm; 8 is near the (geometric) middle. The other tasks
follow without more tuning. The valid parts give the same widths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

SPREAD_PER_WIDTH = 8.0
"""A width is the spread divided by this, on the nearest step of 1, 2, 5, 10, 20, 50, ..."""

LONGEST_TAIL = 4.0
"""Beyond this the intervals grow with the value. An exponential distribution has a tail of 3.6."""

FIRST_SHARE = 0.01
"""Of the values, at most so many are in the first interval of a growing scale."""

_NORMAL_QUARTILES = 1.349  # distance between the quartiles of a normal distribution, in sigmas


@dataclass(frozen=True, slots=True)
class Intervals:
    """What the rule gives for some values.

    Attributes:
        width: Of every interval; of the first one for scale ``1-2-5``. In the values' unit.
        scale: As `moltc_vllm.tasks.Number` has it.
        spread: Distance of the quartiles as the standard deviation of a normal distribution; the
            standard deviation itself if more than half of the values are the same.
        tail: How much further it is from the median up to the 95th percentile than down to the
            fifth; infinite if there is nothing below the median.
    """

    width: float
    scale: Literal["linear", "1-2-5"]
    spread: float
    tail: float


def choose_intervals(values: Sequence[float]) -> Intervals:
    """Apply the rule.

    Equal widths are the rule. Where no value is negative and the tail is long, as of lifetimes
    over seven decades, the ends of the intervals are 0 and the width times 1, 2, 5, 10, ...

    Args:
        values: Those of the part that is trained on.

    Raises:
        ValueError: If there are none, one is not finite, or all are the same.
    """
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise ValueError("intervals need finite values, at least one")
    five, quarter, median, three_quarters, most = np.percentile(array, (5, 25, 50, 75, 95))
    spread = float(three_quarters - quarter) / _NORMAL_QUARTILES or float(array.std())
    if spread == 0:
        raise ValueError("intervals need values that differ")
    below = float(median - five)
    tail = float(most - median) / below if below > 0 else math.inf
    first = float(np.percentile(array, 100 * FIRST_SHARE))
    if tail > LONGEST_TAIL and array.min() >= 0 and first > 0:
        return Intervals(_step_below(first), "1-2-5", spread, tail)
    return Intervals(_nearest_step(spread / SPREAD_PER_WIDTH), "linear", spread, tail)


def _steps_around(value: float) -> list[float]:
    """The steps of 1, 2, 5 in the decades around a positive value, rising."""
    decade = math.floor(math.log10(value))
    # From text: 2 * 10**-1 would do, but 5 * 10**-5 is not 5e-05.
    return [
        float(f"{digit}e{power}") for power in range(decade - 1, decade + 2) for digit in (1, 2, 5)
    ]


def _nearest_step(value: float) -> float:
    """The step that is nearest on a logarithmic scale."""
    return min(_steps_around(value), key=lambda step: abs(math.log(step / value)))


def _step_below(value: float) -> float:
    """The largest step that is not above the value, apart from rounding."""
    return max(step for step in _steps_around(value) if step <= value * (1 + 1e-9))
