"""In which order pairs are learned: a pure function of the seed, so that any step can be redone.

Encoding a molecule costs more than asking about it, so pairs that share molecules come together: a
data set is cut into cells of a block of first molecules by a block of second ones, and the cells
come one after another, in an order that is new in every epoch, as are the blocks.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@dataclass(slots=True)
class PairBlockSampler:
    """The order of one data set's pairs.

    Attributes:
        name: Of the data set; different ones are in different orders.
        molecules: ``[N, roles]``, numbers of molecules.
        block: How many first and second molecules are in a cell; 0: all of them.
        seed: Of the run.
    """

    name: str
    molecules: npt.NDArray[np.int32]
    block: tuple[int, int] | None
    seed: int
    _epochs: dict[int, Indices] = field(default_factory=dict)

    def take(self, start: int, count: int) -> Indices:
        """Pairs number ``start`` to ``start + count`` of the endless sequence of epochs."""
        total = len(self.molecules)
        pieces = []
        while count > 0:
            epoch, place = divmod(start, total)
            piece = self._epoch(epoch)[place : place + count]
            pieces.append(piece)
            start, count = start + len(piece), count - len(piece)
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    def _epoch(self, number: int) -> Indices:
        if number not in self._epochs:
            self._epochs = {number: self._shuffled(number)}  # the others are over
        return self._epochs[number]

    def _shuffled(self, epoch: int) -> Indices:
        rng = np.random.default_rng([self.seed, zlib.crc32(self.name.encode()), epoch])
        order = rng.permutation(len(self.molecules))
        if self.block is None:
            return order
        numbers = self.molecules.max() + 1
        # One permutation of all molecules: a drug is in the same block as first and as second.
        place = rng.permutation(int(numbers))
        used = np.unique(self.molecules)
        rank = np.empty(int(numbers), np.int64)
        rank[used[np.argsort(place[used])]] = np.arange(len(used))
        cell = np.zeros(len(order), np.int64)
        for role, size in enumerate(self.block):
            part = rank[self.molecules[order, role]] // size if size else 0
            cell = cell * (len(used) + 1) + part
        cells, of_pair = np.unique(cell, return_inverse=True)
        return order[np.argsort(rng.permutation(len(cells))[of_pair], kind="stable")]


def step_rng(seed: int, name: str, step: int) -> np.random.Generator:
    """Random numbers of one data set's pairs in one step."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), step, 1])


def shares(counts: Sequence[int], process: int, processes: int) -> list[slice]:
    """Which of each data set's pairs of a step one of several processes takes."""
    return [
        slice(count * process // processes, count * (process + 1) // processes) for count in counts
    ]
