"""Numeric answers: an interval followed by a value (the two levels of the MolTC paper)."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import chain, count, pairwise
from typing import Literal

from moltc_vllm.tasks.answer import ParsedFields, UnparsedError
from moltc_vllm.tasks.confidence import TokenLogprob, joint_probability, tokens_before
from moltc_vllm.tasks.grammar import Grammar, decimals, literal

VALUE_MARK = ", so the accurate value"
# The number of digits is limited so that no text parses to infinity.
_NUMBER = r"([-+]?[0-9]{1,12}(?:\.[0-9]{1,12})?)"


@dataclass(frozen=True, slots=True)
class Number:
    """Numeric answer: a value and the interval that contains it.

    ``The solvation Gibbs free energy of these two molecules is above -4.5 and below -4.0, so the
    accurate value is -4.27;``

    Values are rounded before they are assigned to an interval. Intervals include their lower end
    and exclude their upper end, so the two ends always differ; in the published data, a value on a
    boundary has an empty interval (docs/concepts/published-model.md, bug 12). The last interval
    may extend beyond the bounds.

    Attributes:
        phrase: Name of the quantity in the text.
        unit: Unit of the value and the interval; empty for a ratio.
        bounds: Lowest and highest value; integers, of which the second is positive.
        interval_width: Width of every interval, or of the first one for scale ``1-2-5``.
        decimals: Number of digits after the decimal point of the value, at least one.
        scale: Spacing of the interval ends. ``1-2-5`` is for quantities that span decades: the
            ends are 0 and ``interval_width`` times 1, 2, 5, 10, 20, 50, ...

    Source: target texts of MolTC (Fang et al. 2024); docs/concepts/published-model.md, section
        "Data and target texts".
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
            raise ValueError(f"bounds {self.bounds} must be ascending, with a positive upper bound")
        if self.scale == "1-2-5" and low != 0:
            raise ValueError("scale 1-2-5 starts at zero")
        if self.interval_width <= 0 or self.decimals < 1:
            raise ValueError("interval_width must be positive and decimals at least one")

    def write(self, value: float) -> str:
        """Return the answer text for a value.

        Raises:
            ValueError: If the value is outside the bounds or NaN.
        """
        if not self.bounds[0] <= value <= self.bounds[1]:
            raise ValueError(f"{self.phrase}: {self._outside(value)}")
        rounded = round(Decimal(repr(float(value))), self.decimals) + 0  # + 0: never "-0.00"
        ends = _ends(self)
        upper = bisect_right(ends, rounded)
        interval = _interval(ends[upper - 1], ends[upper])
        return f"{self.answer_prefix}{interval}{VALUE_MARK} is {rounded};"

    def parse(self, text: str) -> ParsedFields:
        """Parse interval and value; case, whitespace and the final ``;`` are optional.

        A value outside its interval is accepted; both are returned as written.

        Raises:
            UnparsedError: If the text has another form, the value is outside the bounds, or the
                lower end of the interval is above the upper end.
        """
        match = _pattern(self.phrase).fullmatch(" ".join(text.split()))
        if match is None:
            raise UnparsedError(
                f"not of the form '{self.answer_prefix}L and below U{VALUE_MARK} is V;'"
            )
        lower, upper, value = (float(group) + 0.0 for group in match.groups())
        if lower > upper:
            raise UnparsedError(f"the interval from {lower} to {upper} has its ends reversed")
        if not self.bounds[0] <= value <= self.bounds[1]:
            raise UnparsedError(self._outside(value))
        return ParsedFields(
            value=value, generated_value=value, unit=self.unit or None, interval=(lower, upper)
        )

    def grammar(self) -> Grammar:
        """Return a grammar of all intervals with their values; `parse` accepts all its texts."""
        return _grammar(self)

    def confidence(self, text: str, tokens: Sequence[TokenLogprob]) -> float | None:
        """Return the probability of the text before the value, i.e. of the interval."""
        return joint_probability(tokens_before(text, tokens, VALUE_MARK))

    @property
    def answer_prefix(self) -> str:
        """Text before the interval, the same in every answer."""
        return f"The {self.phrase} of these two molecules is above "

    def intervals(self) -> tuple[tuple[float, float], ...]:
        """Return both ends of every interval that contains a value, ascending."""
        return _intervals(self)

    def clip(self, lower: float, upper: float) -> tuple[float, float]:
        """Return the part of an interval that lies within the bounds."""
        low, high = float(self.bounds[0]), float(self.bounds[1])
        return min(max(lower, low), high), min(max(upper, low), high)

    def interval_ends(self) -> tuple[float, ...]:
        """Return the ends of all intervals, ascending; `position` counts from the first one."""
        return _float_ends(self)

    def contains(self, interval: tuple[float, float], value: float) -> bool:
        """Return whether an interval contains a value, as in training texts.

        The value is rounded, and an interval contains its lower end only. An interval whose ends
        are equal contains that value: the published texts have such intervals, and so has the part
        of the last interval that lies within the bounds.
        """
        lower, upper = interval
        rounded = float(round(Decimal(repr(float(value))), self.decimals))
        return lower <= rounded < upper or lower == rounded == upper

    def position(self, value: float) -> float:
        """Return a value's position in units of intervals; 0.5 is the first interval's center."""
        ends = _float_ends(self)
        index = min(max(bisect_right(ends, value) - 1, 0), len(ends) - 2)
        return index + (value - ends[index]) / (ends[index + 1] - ends[index])

    def value_at(self, position: float) -> float:
        """Return the value at a `position`, clamped to the bounds."""
        ends = _ends(self)
        index = min(max(math.floor(position), 0), len(ends) - 2)
        lower, upper = float(ends[index]), float(ends[index + 1])
        value = lower + (position - index) * (upper - lower)
        return min(max(value, float(self.bounds[0])), float(self.bounds[1]))

    def round(self, value: float) -> float:
        """Round a value to the digits of a written value."""
        return round(value, self.decimals) + 0.0  # adding zero turns -0.0 into 0.0

    def interval_text(self, lower: float, upper: float) -> str:
        """Return the part of the answer text before the value."""
        return f"{self.answer_prefix}{_interval(Decimal(repr(lower)), Decimal(repr(upper)))}"

    def count(self, lower: float, upper: float) -> int:
        """Return the number of distinct values in an interval."""
        return len(_scaled_values(self, Decimal(repr(lower)), Decimal(repr(upper))))

    def texts(self, lower: float, upper: float) -> Iterator[str]:
        """Return the answer text of every value in an interval, ascending."""
        scale = 10**self.decimals
        scaled = _scaled_values(self, Decimal(repr(lower)), Decimal(repr(upper)))
        return (self.write(value / scale) for value in scaled)

    def examples(self) -> Iterator[str]:
        """Return nine answer texts, evenly spaced between the bounds."""
        low, high = self.bounds
        return (self.write(low + (high - low) * step / 8) for step in range(9))

    def _outside(self, value: float) -> str:
        return f"{value} is outside {self.bounds[0]} to {self.bounds[1]} {self.unit}".rstrip()


def _interval(lower: Decimal, upper: Decimal) -> str:
    return f"{float(lower)} and below {float(upper)}"  # -4.0, 420.0 as in the published texts


@lru_cache
def _ends(kind: Number) -> tuple[Decimal, ...]:
    """Return the ends of all intervals, ascending; the last one is above the upper bound."""
    low, high = kind.bounds
    steps: Iterator[Decimal]
    width = Decimal(repr(kind.interval_width))  # exact decimals: 3 * 0.1 is 0.3
    if kind.scale == "linear":
        first = math.floor(low / width)
        steps = (width * index for index in count(first))
    else:
        decades = (width * digit * 10**power for power in count() for digit in (1, 2, 5))
        steps = chain((Decimal(0),), decades)
    ends = []
    for end in steps:
        ends.append(end)
        if end > high:
            break
    return tuple(ends)


@lru_cache
def _float_ends(kind: Number) -> tuple[float, ...]:
    return tuple(float(end) for end in _ends(kind))


@lru_cache
def _intervals(kind: Number) -> tuple[tuple[float, float], ...]:
    return tuple(
        (float(a), float(b)) for a, b in pairwise(_ends(kind)) if _scaled_values(kind, a, b)
    )


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
        if (values := _values_regex(kind, *ends))
    )
    return Grammar("regex", f"{literal(kind.answer_prefix)}(?:{'|'.join(answers)});")


def _scaled_values(kind: Number, lower: Decimal, upper: Decimal) -> range:
    """Return an interval's values within the bounds, in units of the last decimal."""
    scale = 10**kind.decimals
    first = max(math.ceil(lower * scale), kind.bounds[0] * scale)
    return range(first, min(math.ceil(upper * scale) - 1, kind.bounds[1] * scale) + 1)


def _values_regex(kind: Number, lower: Decimal, upper: Decimal) -> str:
    """Return a regular expression for an interval's values, empty if all are out of bounds."""
    scaled = _scaled_values(kind, lower, upper)
    if not scaled:
        return ""
    first, last = scaled[0], scaled[-1]
    if last < 0:
        return "-" + decimals(-last, -first, kind.decimals)
    return decimals(first, last, kind.decimals)
