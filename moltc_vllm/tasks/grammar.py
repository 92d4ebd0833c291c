"""What a text may be, for constrained decoding; the plugin turns it into vLLM's own form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Grammar:
    """All texts of an answer: one of several, or all that a regular expression matches."""

    kind: Literal["choice", "regex"]
    value: str | tuple[str, ...]


def literal(text: str) -> str:
    r"""Escape a text for a regular expression.

    Not ``re.escape``: it also escapes blanks and minus signs, which grammar engines may refuse.
    """
    return "".join("\\" + char if char in r".^$*+?{}[]\|()" else char for char in text)


def integers(low: int, high: int) -> str:
    """A regular expression of exactly the integers from ``low`` to ``high``, both not negative.

    Raises:
        ValueError: If there are none, or ``low`` is negative.
    """
    if not 0 <= low <= high:
        raise ValueError(f"no integers from {low} to {high}")
    branches = []
    while len(str(low)) < len(str(high)):
        last = 10 ** len(str(low)) - 1  # 9, 99, ...: numbers of one length at a time
        branches.append(_same_length(str(low), str(last)))
        low = last + 1
    branches.append(_same_length(str(low), str(high)))
    return "(?:" + "|".join(branches) + ")"


def decimals(low: int, high: int, digits: int) -> str:
    """A regular expression of exactly the decimal numbers from ``low`` to ``high``.

    Args:
        low: The smallest, in units of the last digit; not negative.
        high: The largest, in the same units.
        digits: How many stand after the point, at least one.

    Raises:
        ValueError: If there are none, or ``low`` is negative.
    """
    if not 0 <= low <= high:
        raise ValueError(f"no numbers from {low} to {high}")
    scale = 10**digits
    (first, start), (last, end) = divmod(low, scale), divmod(high, scale)

    def part(whole: int, begin: int, stop: int) -> str:
        return rf"{whole}\." + _same_length(str(begin).zfill(digits), str(stop).zfill(digits))

    if first == last:
        return part(first, start, end)
    branches = []
    if start:
        branches.append(part(first, start, scale - 1))
        first += 1
    if end != scale - 1:
        branches.append(part(last, 0, end))
        last -= 1
    if first <= last:
        branches.append(rf"{integers(first, last)}\." + "[0-9]" * digits)
    return "(?:" + "|".join(branches) + ")"


def _same_length(low: str, high: str) -> str:
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
