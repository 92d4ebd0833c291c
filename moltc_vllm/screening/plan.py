"""Which pairs a screen has, in which order they are worked off, and in which part each one is.

A pair's *place* is where it stands in the order of work, from 0; parts are so many places each. Its
*row* is its number for people, from 1: the row of a file of pairs, or of a product's rows counted
with the second molecule running faster.

Products are worked off in blocks of second molecules: within a block the first molecule changes
last, so that its part of the prompt stays cached, and the block's own molecules stay encoded while
all first molecules pass. So each second molecule is encoded once, however long both libraries are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class PairIndex(NamedTuple):
    """A pair: its row, and where its molecules are in their tables, from 0."""

    row: int
    first: int
    second: int


class Plan(Protocol):
    """All pairs of a screen, none of them in memory."""

    def __len__(self) -> int:
        """PairingMode many there are."""
        ...

    def slice(self, start: int, stop: int) -> Iterator[PairIndex]:
        """The pairs at these places, in the order of work."""
        ...


@dataclass(frozen=True, slots=True)
class Zip:
    """Row by row: of a file of pairs, or of two tables of equal length."""

    rows: int

    def __len__(self) -> int:
        return self.rows

    def slice(self, start: int, stop: int) -> Iterator[PairIndex]:
        """See `Plan`."""
        return (PairIndex(place + 1, place, place) for place in range(start, min(stop, self.rows)))


@dataclass(frozen=True, slots=True)
class Product:
    """Every molecule of one table with every one of another.

    Attributes:
        first: Rows of the first table.
        second: Rows of the second table.
        block: So many second molecules are worked off together.
    """

    first: int
    second: int
    block: int

    def __len__(self) -> int:
        return self.first * self.second

    def slice(self, start: int, stop: int) -> Iterator[PairIndex]:
        """See `Plan`."""
        stop = min(stop, len(self))
        while start < stop:
            begin = start // (self.first * self.block) * self.block
            width = min(self.block, self.second - begin)
            first, offset = divmod(start - begin * self.first, width)
            for place in range(min(width - offset, stop - start)):
                second = begin + offset + place
                yield PairIndex(first * self.second + second + 1, first, second)
            start += min(width - offset, stop - start)


@dataclass(frozen=True, slots=True)
class Triangle:
    """Every two different rows of one table, once: the first stands before the second.

    Attributes:
        size: Rows of the table.
        block: As in `Product`.
    """

    size: int
    block: int

    def __len__(self) -> int:
        return self.size * (self.size - 1) // 2

    def slice(self, start: int, stop: int) -> Iterator[PairIndex]:
        """See `Plan`."""
        stop = min(stop, len(self))
        place = 0  # of the first pair of the block
        for begin in range(0, self.size, self.block):
            end = min(begin + self.block, self.size)
            count = _before(end) - _before(begin)
            if place + count > start:
                yield from self._block(begin, end, max(start - place, 0), min(stop - place, count))
            place += count
            if place >= stop:
                return

    def _block(self, begin: int, end: int, start: int, stop: int) -> Iterator[PairIndex]:
        """Pairs number ``start`` to ``stop`` of those whose second molecule is in the block."""
        width = end - begin
        # The molecules in front of the block meet all of it; those in it the ones behind them.
        first = min(start // width, begin)
        place = first * width
        while place < stop:
            least = max(begin, first + 1)
            for second in range(least + max(start - place, 0), end):
                if place + second - least >= stop:
                    return
                row = first * self.size - _before(first + 1) + second - first
                yield PairIndex(row, first, second)
            place += end - least
            first += 1


class Shuffled:
    """Another plan's pairs in a random order, which takes no memory.

    Places go through a Feistel network of four rounds over the next power of four, again and again
    until the number is a place. With the order goes what makes neighbours cheap: a first molecule
    whose part of the prompt is cached.

    Args:
        plan: The other one.
        seed: Of the order.

    Source: Luby and Rackoff 1988, https://doi.org/10.1137/0217022; the repetition: Black and
    Rogaway 2002, https://doi.org/10.1007/3-540-45760-7_9.
    """

    def __init__(self, plan: Plan, seed: int) -> None:
        self._plan = plan
        self._half = max(1, -(-(len(plan) - 1).bit_length() // 2))
        self._keys = [f"{seed} {turn}".encode() for turn in range(4)]

    def __len__(self) -> int:
        return len(self._plan)

    def slice(self, start: int, stop: int) -> Iterator[PairIndex]:
        """See `Plan`."""
        for place in range(start, min(stop, len(self))):
            other = self._mixed(place)
            while other >= len(self):
                other = self._mixed(other)
            yield from self._plan.slice(other, other + 1)

    def _mixed(self, place: int) -> int:
        left, right = place >> self._half, place & ((1 << self._half) - 1)
        for key in self._keys:
            digest = hashlib.blake2b(right.to_bytes(8, "little"), digest_size=8, key=key).digest()
            drawn = int.from_bytes(digest, "little") & ((1 << self._half) - 1)
            left, right = right, left ^ drawn
        return left << self._half | right


@dataclass(frozen=True, slots=True)
class Limited:
    """The first places of another plan.

    Attributes:
        plan: The other one.
        most: So many.
    """

    plan: Plan
    most: int

    def __len__(self) -> int:
        return min(self.most, len(self.plan))

    def slice(self, start: int, stop: int) -> Iterator[PairIndex]:
        """See `Plan`."""
        return self.plan.slice(start, min(stop, len(self)))


def _before(size: int) -> int:
    """Pairs of two different ones of so many."""
    return size * (size - 1) // 2
