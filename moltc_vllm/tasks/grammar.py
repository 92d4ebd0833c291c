"""Grammars for constrained decoding, independent of vLLM's structured-output types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Grammar:
    """Set of valid answer texts: a list of choices or a regular expression."""

    kind: Literal["choice", "regex"]
    value: str | tuple[str, ...]


def literal(text: str) -> str:
    r"""Escape a text for use in a regular expression.

    Unlike ``re.escape``, this leaves blanks and minus signs alone, because grammar engines may
    reject their escaped forms.
    """
    return "".join("\\" + char if char in r".^$*+?{}[]\|()" else char for char in text)


def integers(low: int, high: int) -> str:
    """Return a regular expression that matches exactly the integers from ``low`` to ``high``.

    Raises:
        ValueError: If ``low`` is negative or greater than ``high``.
    """
    if not 0 <= low <= high:
        raise ValueError(f"no integers from {low} to {high}")
    branches = []
    while len(str(low)) < len(str(high)):
        last = 10 ** len(str(low)) - 1  # largest number with as many digits
        branches.append(_same_length(str(low), str(last)))
        low = last + 1
    branches.append(_same_length(str(low), str(high)))
    return "(?:" + "|".join(branches) + ")"


def decimals(low: int, high: int, digits: int) -> str:
    """Return a regular expression that matches exactly the decimals from ``low`` to ``high``.

    Args:
        low: Smallest number, in units of the last digit; not negative.
        high: Largest number, in units of the last digit.
        digits: Number of digits after the decimal point, at least one.

    Raises:
        ValueError: If ``low`` is negative or greater than ``high``.
    """
    if not 0 <= low <= high:
        raise ValueError(f"no numbers from {low} to {high}")
    scale = 10**digits
    (first, start), (last, end) = divmod(low, scale), divmod(high, scale)

    def fractions(whole: int, begin: int, stop: int) -> str:
        return rf"{whole}\." + _same_length(str(begin).zfill(digits), str(stop).zfill(digits))

    if first == last:
        return fractions(first, start, end)
    branches = []
    if start:
        branches.append(fractions(first, start, scale - 1))
        first += 1
    if end != scale - 1:
        branches.append(fractions(last, 0, end))
        last -= 1
    if first <= last:
        branches.append(rf"{integers(first, last)}\." + "[0-9]" * digits)
    return "(?:" + "|".join(branches) + ")"


def _same_length(low: str, high: str) -> str:
    """Match the digit strings from ``low`` to ``high``, which have the same length."""
    if low == high:
        return low
    if len(low) == 1:
        return f"[{low}-{high}]"
    if low[0] == high[0]:
        return low[0] + _same_length(low[1:], high[1:])
    first, last = int(low[0]), int(high[0])
    zeros, nines = "0" * (len(low) - 1), "9" * (len(low) - 1)
    branches = []
    if low[1:] != zeros:
        branches.append(low[0] + _same_length(low[1:], nines))
        first += 1
    tail = None
    if high[1:] != nines:
        tail = high[0] + _same_length(zeros, high[1:])
        last -= 1
    if first <= last:
        head = str(first) if first == last else f"[{first}-{last}]"
        branches.append(head + "[0-9]" * len(zeros))
    if tail is not None:
        branches.append(tail)
    return branches[0] if len(branches) == 1 else "(?:" + "|".join(branches) + ")"
