"""The numeric answer: first an interval, then the value (the paper's two levels)."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import count, pairwise
from typing import Literal

from moltc_vllm.tasks.answer import Fields, UnparsedError
from moltc_vllm.tasks.confidence import TokenLogprob, probability, tokens_before
from moltc_vllm.tasks.grammar import Grammar, decimals, literal

VALUE_MARK = ", so the accurate value"
# Digits are counted, so that no text becomes an infinity.
_NUMBER = r"([-+]?[0-9]{1,12}(?:\.[0-9]{1,12})?)"


@dataclass(frozen=True, slots=True)
class Number:
    """A value and the interval it is in.

    ``The solvation Gibbs free energy of these two molecules is above -4.5 and below -4.0, so the
    accurate value is -4.27;``

    The value is rounded first; its interval holds its own lower end and not its upper one, so the
    two ends always differ (published texts give a value on an end an empty interval). The interval
    of the largest values may reach beyond the bounds.

    Attributes:
        phrase: What is measured, as the text names it.
        unit: Of the value and the interval; empty for a mere ratio.
        bounds: Lowest and highest value, whole numbers, not both negative.
        interval_width: Width of every interval; of the first one for scale ``1-2-5``.
        decimals: Digits after the point of the value, at least one.
        scale: ``1-2-5`` for quantities that span decades: the ends are 0 and ``interval_width``
            times 1, 2, 5, 10, 20, 50, ...

    Source: MolTC (Fang et al. 2024), the texts that its data scripts write.
    """

    phrase: str
    unit: str
    bounds: tuple[int, int]
    interval_width: float
    decimals: int
    scale: Literal["linear", "1-2-5"] = "linear"

    def __post_init__(self) -> None:
        low, high = self.bounds
        if not low < high or high <= 0:
            raise ValueError(f"bounds {self.bounds} must rise and end above zero")
        if self.scale == "1-2-5" and low != 0:
            raise ValueError("scale 1-2-5 starts at zero")
        if self.interval_width <= 0 or self.decimals < 1:
            raise ValueError("interval_width must be positive and decimals at least one")

    def write(self, value: float) -> str:
        """The text of a value.

        Raises:
            ValueError: If the value is outside the bounds, or not a number.
        """
        if not self.bounds[0] <= value <= self.bounds[1]:
            raise ValueError(f"{self.phrase}: {self._outside(value)}")
        rounded = round(Decimal(repr(float(value))), self.decimals) + 0  # + 0: never "-0.00"
        ends = _ends(self)
        upper = bisect_right(ends, rounded)
        interval = _interval(ends[upper - 1], ends[upper])
        return f"{self.start}{interval}{VALUE_MARK} is {rounded};"

    def parse(self, text: str) -> Fields:
        """Read interval and value; case, blanks and the final ``;`` do not matter.

        A value outside its own interval is an answer, with both as they were written.

        Raises:
            UnparsedError: If the text has another form, the value is outside the bounds, or the
                interval runs backwards.
        """
        match = _pattern(self.phrase).fullmatch(" ".join(text.split()))
        if match is None:
            raise UnparsedError(f"not of the form '{self.start}L and below U{VALUE_MARK} is V;'")
        lower, upper, value = (float(group) + 0.0 for group in match.groups())
        if lower > upper:
            raise UnparsedError(f"the interval from {lower} to {upper} runs backwards")
        if not self.bounds[0] <= value <= self.bounds[1]:
            raise UnparsedError(self._outside(value))
        return Fields(value=value, stated=value, unit=self.unit or None, interval=(lower, upper))

    def grammar(self) -> Grammar:
        """All intervals, each with the values that are in it: whatever it allows can be parsed."""
        return _grammar(self)

    def confidence(self, text: str, tokens: Sequence[TokenLogprob]) -> float | None:
        """The probability that the model gave its interval: all that stands before the value."""
        return probability(tokens_before(text, tokens, VALUE_MARK))

    @property
    def start(self) -> str:
        """What every answer begins with."""
        return f"The {self.phrase} of these two molecules is above "

    def intervals(self) -> tuple[tuple[float, float], ...]:
        """Both ends of every interval that has a value, rising."""
        return _intervals(self)

    def position(self, value: float) -> float:
        """Where a value is, counted in intervals: 0.5 is the middle of the first one."""
        ends = [float(end) for end in _ends(self)]
        place = min(max(bisect_right(ends, value) - 1, 0), len(ends) - 2)
        return place + (value - ends[place]) / (ends[place + 1] - ends[place])

    def value_at(self, position: float) -> float:
        """The value at a position, see there; within the bounds."""
        ends = _ends(self)
        place = min(max(math.floor(position), 0), len(ends) - 2)
        lower, upper = float(ends[place]), float(ends[place + 1])
        value = lower + (position - place) * (upper - lower)
        return min(max(value, float(self.bounds[0])), float(self.bounds[1]))

    def interval_text(self, lower: float, upper: float) -> str:
        """What an answer says before its value."""
        return f"{self.start}{_interval(Decimal(repr(lower)), Decimal(repr(upper)))}"

    def count(self, lower: float, upper: float) -> int:
        """How many values an interval has."""
        return len(_grid(self, Decimal(repr(lower)), Decimal(repr(upper))))

    def texts(self, lower: float, upper: float) -> Iterator[str]:
        """The text of every value of an interval, rising."""
        scale = 10**self.decimals
        grid = _grid(self, Decimal(repr(lower)), Decimal(repr(upper)))
        return (self.write(number / scale) for number in grid)

    def examples(self) -> Iterator[str]:
        """A few texts, evenly over the bounds."""
        low, high = self.bounds
        return (self.write(low + (high - low) * step / 8) for step in range(9))

    def _outside(self, value: float) -> str:
        return f"{value} is outside {self.bounds[0]} to {self.bounds[1]} {self.unit}".rstrip()


def _interval(lower: Decimal, upper: Decimal) -> str:
    return f"{float(lower)} and below {float(upper)}"  # as the published texts: -4.0, 420.0


@lru_cache
def _ends(kind: Number) -> tuple[Decimal, ...]:
    """The ends of all intervals, rising; the last one is above the bounds."""
    low, high = kind.bounds
    width = Decimal(repr(kind.interval_width))  # decimal, so that 3 * 0.1 is 0.3
    if kind.scale == "linear":
        first = math.floor(low / width)
        steps = (width * number for number in count(first))
    else:
        decades = (width * digit * 10**power for power in count() for digit in (1, 2, 5))
        steps = (end for part in ((Decimal(0),), decades) for end in part)
    ends = []
    for end in steps:
        ends.append(end)
        if end > high:
            break
    return tuple(ends)


@lru_cache
def _intervals(kind: Number) -> tuple[tuple[float, float], ...]:
    return tuple((float(a), float(b)) for a, b in pairwise(_ends(kind)) if _grid(kind, a, b))


@lru_cache
def _pattern(phrase: str) -> re.Pattern[str]:
    return re.compile(
        f"The {re.escape(phrase)} of these two molecules is above {_NUMBER} and below {_NUMBER} ?,"
        f" ?so the accurate value is {_NUMBER} ?;?",
        re.IGNORECASE,
    )


@lru_cache
def _grammar(kind: Number) -> Grammar:
    answers = (
        f"{literal(_interval(*ends) + VALUE_MARK)} is {values}"
        for ends in pairwise(_ends(kind))
        if (values := _values(kind, *ends))
    )
    return Grammar("regex", f"{literal(kind.start)}(?:{'|'.join(answers)});")


def _grid(kind: Number, lower: Decimal, upper: Decimal) -> range:
    """The values of an interval that are within the bounds, in units of the last digit."""
    scale = 10**kind.decimals
    first = max(math.ceil(lower * scale), kind.bounds[0] * scale)
    return range(first, min(math.ceil(upper * scale) - 1, kind.bounds[1] * scale) + 1)


def _values(kind: Number, lower: Decimal, upper: Decimal) -> str:
    """A regular expression of the values of an interval; empty if all are out of bounds."""
    grid = _grid(kind, lower, upper)
    if not grid:
        return ""
    first, last = grid[0], grid[-1]
    if last < 0:
        return "-" + decimals(-last, -first, kind.decimals)
    return decimals(first, last, kind.decimals)
