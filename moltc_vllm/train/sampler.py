"""Order in which a data set's pairs are trained on, as a pure function of the seed.

Encoding a molecule costs more than answering for a pair, so pairs that share molecules are put into
the same batch. The molecules of a data set are divided into blocks; all pairs between a block of
first molecules and a block of second molecules form a cell, and the cells are visited one after
another. Blocks and the order of cells are drawn anew in every epoch. Because the order depends on
seed and step only, a resumed run draws the same batches.
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
    """Sampler without replacement over one data set's pairs.

    Attributes:
        name: Name of the data set, which enters the seed.
        molecules: ``[N, roles]`` int32, molecule indices of each pair.
        block: Numbers of first and second molecules in a block, 0 for all of them; ``None``
            samples in random order.
        seed: Seed of the run.
    """

    name: str
    molecules: npt.NDArray[np.int32]
    block: tuple[int, int] | None
    seed: int
    _epochs: dict[int, Indices] = field(default_factory=dict)

    def indices(self, start: int, count: int) -> Indices:
        """Return ``[count]`` pair indices of the endless sequence of epochs.

        Args:
            start: Position of the first index in the sequence.
            count: Number of indices.

        Raises:
            ValueError: If the data set has no pairs.
        """
        total = len(self.molecules)
        if total == 0:
            raise ValueError(f"{self.name} has no pairs to train on: remove it from the mixture")
        pieces = []
        while count > 0:
            epoch, offset = divmod(start, total)
            piece = self._epoch(epoch)[offset : offset + count]
            pieces.append(piece)
            start, count = start + len(piece), count - len(piece)
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    def _epoch(self, epoch: int) -> Indices:
        if epoch not in self._epochs:
            self._epochs = {epoch: self._shuffle(epoch)}  # earlier epochs are not needed again
        return self._epochs[epoch]

    def _shuffle(self, epoch: int) -> Indices:
        rng = np.random.default_rng([self.seed, zlib.crc32(self.name.encode()), epoch])
        order = rng.permutation(len(self.molecules))
        if self.block is None:
            return order
        # Both roles share one permutation, so a drug is in the same block in either role.
        position = rng.permutation(int(self.molecules.max() + 1))
        used = np.unique(self.molecules)
        rank = np.empty(len(position), np.int64)
        rank[used[np.argsort(position[used])]] = np.arange(len(used))
        cell = np.zeros(len(order), np.int64)
        for role, size in enumerate(self.block):
            block = rank[self.molecules[order, role]] // size if size else 0
            cell = cell * (len(used) + 1) + block
        cells, cell_of_pair = np.unique(cell, return_inverse=True)
        return order[np.argsort(rng.permutation(len(cells))[cell_of_pair], kind="stable")]


def step_rng(seed: int, name: str, step: int) -> np.random.Generator:
    """Return the random number generator of one data set's pairs in one step."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), step, 1])


def process_slices(counts: Sequence[int], process: int, processes: int) -> list[slice]:
    """Return the part of each data set's pairs of a step that one process trains on.

    Args:
        counts: Number of pairs of each data set in the step.
        process: Index of the process.
        processes: Number of processes.
    """
    return [
        slice(count * process // processes, count * (process + 1) // processes) for count in counts
    ]
