"""Plans: which pairs a screen has, and in which order they are processed.

The *position* of a pair counts from 0 in processing order; each part holds a fixed number of
consecutive positions. The *row* of a pair counts from 1 and is shown to users: it is the row in a
table of pairs, or the row of a product in which the second molecule changes fastest.

Products are processed in blocks of second molecules. Within a block the first molecule changes
slowest, so that its part of the prompt stays in the prefix cache, and the encodings of the block's
molecules stay cached until all first molecules are processed. Each second molecule is therefore
encoded once, however large both libraries are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class PairIndex(NamedTuple):
    """A pair as indices into the tables.

    Attributes:
        row: Row number of the pair, from 1.
        first: Index of the first molecule in its table, from 0.
        second: Index of the second molecule in its table, from 0.
    """

    row: int
    first: int
    second: int


class Plan(Protocol):
    """All pairs of a screen in processing order, generated on demand."""

    def __len__(self) -> int:
        """Return the number of pairs."""
        ...

    def slice(self, start: int, stop: int) -> Iterator[PairIndex]:
        """Yield the pairs at positions ``start:stop``; positions beyond the end are ignored."""
        ...


@dataclass(frozen=True, slots=True)
class Zip:
    """Pairs row by row: of a table of pairs, or of two tables of equal length.

    Attributes:
        rows: Number of rows.
    """

    rows: int

    def __len__(self) -> int:
        return self.rows

    def slice(self, start: int, stop: int) -> Iterator[PairIndex]:
        """See `Plan`."""
        return (PairIndex(index + 1, index, index) for index in range(start, min(stop, self.rows)))


@dataclass(frozen=True, slots=True)
class Product:
    """Every molecule of one table paired with every molecule of another.

    Attributes:
        first_rows: Number of rows of the first table.
        second_rows: Number of rows of the second table.
        block_size: Number of second molecules that are processed together.
    """

    first_rows: int
    second_rows: int
    block_size: int

    def __len__(self) -> int:
        return self.first_rows * self.second_rows

    def slice(self, start: int, stop: int) -> Iterator[PairIndex]:
        """See `Plan`."""
        stop = min(stop, len(self))
        while start < stop:
            block_start = start // (self.first_rows * self.block_size) * self.block_size
            width = min(self.block_size, self.second_rows - block_start)
            first, offset = divmod(start - block_start * self.first_rows, width)
            count = min(width - offset, stop - start)
            for second in range(block_start + offset, block_start + offset + count):
                yield PairIndex(first * self.second_rows + second + 1, first, second)
            start += count


@dataclass(frozen=True, slots=True)
class Triangle:
    """Every two different rows of one table, once: the first row precedes the second.

    Attributes:
        rows: Number of rows of the table.
        block_size: Number of second molecules that are processed together.
    """

    rows: int
    block_size: int

    def __len__(self) -> int:
        return _pair_count(self.rows)

    def slice(self, start: int, stop: int) -> Iterator[PairIndex]:
        """See `Plan`."""
        stop = min(stop, len(self))
        position = 0  # of the block's first pair
        for block_start in range(0, self.rows, self.block_size):
            block_stop = min(block_start + self.block_size, self.rows)
            count = _pair_count(block_stop) - _pair_count(block_start)
            if position + count > start:
                yield from self._slice_block(
                    block_start, block_stop, max(start - position, 0), min(stop - position, count)
                )
            position += count
            if position >= stop:
                return

    def _slice_block(
        self, block_start: int, block_stop: int, start: int, stop: int
    ) -> Iterator[PairIndex]:
        """Yield pairs ``start:stop`` of one block of second molecules."""
        width = block_stop - block_start
        # First molecules before the block are paired with the whole block and have `width` pairs
        # each; those inside it are paired only with the molecules that follow them.
        first = min(start // width, block_start)
        position = first * width
        while position < stop:
            first_second = max(block_start, first + 1)
            for second in range(first_second + max(start - position, 0), block_stop):
                if position + second - first_second >= stop:
                    return
                row = first * self.rows - _pair_count(first + 1) + second - first
                yield PairIndex(row, first, second)
            position += block_stop - first_second
            first += 1


@dataclass(frozen=True, slots=True)
class BothDirections:
    """Every pair of another plan, each followed by the pair with its molecules swapped.

    Attributes:
        plan: Plan of pairs from one table.
    """

    plan: Plan

    def __len__(self) -> int:
        return 2 * len(self.plan)

    def slice(self, start: int, stop: int) -> Iterator[PairIndex]:
        """See `Plan`."""
        first_pair = start // 2
        for position, (row, first, second) in enumerate(
            self.plan.slice(first_pair, -(-stop // 2)), first_pair
        ):
            if start <= 2 * position:
                yield PairIndex(2 * row - 1, first, second)
            if 2 * position + 1 < stop:
                yield PairIndex(2 * row, second, first)


class Shuffled:
    """Another plan in a random order that needs no memory.

    A Feistel network of four rounds permutes the positions up to the next power of four; it is
    applied again while the result lies beyond the plan (cycle walking). A random order makes a
    partial run an unbiased sample, but gives up the cached prompt of a first molecule.

    Args:
        plan: Plan to shuffle.
        seed: Seed of the order.

    Source: Luby and Rackoff 1988, https://doi.org/10.1137/0217022; cycle walking: Black and
    Rogaway 2002, https://doi.org/10.1007/3-540-45760-7_9.
    """

    def __init__(self, plan: Plan, seed: int) -> None:
        self._plan = plan
        self._half_bits = max(1, -(-(len(plan) - 1).bit_length() // 2))
        self._keys = [f"{seed} {round_index}".encode() for round_index in range(4)]

    def __len__(self) -> int:
        return len(self._plan)

    def slice(self, start: int, stop: int) -> Iterator[PairIndex]:
        """See `Plan`."""
        for position in range(start, min(stop, len(self))):
            source = self._permute(position)
            while source >= len(self):
                source = self._permute(source)
            yield from self._plan.slice(source, source + 1)

    def _permute(self, position: int) -> int:
        mask = (1 << self._half_bits) - 1
        left, right = position >> self._half_bits, position & mask
        for key in self._keys:
            digest = hashlib.blake2b(right.to_bytes(8, "little"), digest_size=8, key=key).digest()
            left, right = right, left ^ (int.from_bytes(digest, "little") & mask)
        return left << self._half_bits | right


@dataclass(frozen=True, slots=True)
class Limited:
    """The first pairs of another plan.

    Attributes:
        plan: Plan to shorten.
        limit: Largest number of pairs.
    """

    plan: Plan
    limit: int

    def __len__(self) -> int:
        return min(self.limit, len(self.plan))

    def slice(self, start: int, stop: int) -> Iterator[PairIndex]:
        """See `Plan`."""
        return self.plan.slice(start, min(stop, len(self)))


def _pair_count(size: int) -> int:
    """Return the number of pairs of two different items out of ``size``."""
    return size * (size - 1) // 2
