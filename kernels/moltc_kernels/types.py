"""What the operations take: the bond lists of a ragged batch, and the error for a wrong shape."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CHIRALITIES = 3
"""Chirality tags in an atom code: ``code = type * CHIRALITIES + chirality``."""

BOND_DIRECTIONS = 3
"""Bond directions in a bond code: ``code = type * BOND_DIRECTIONS + direction``."""

SELF_LOOP_CODE = 0
"""Bond code of an atom's self loop: (type 0, direction 0), as the published model has it."""


class ShapeError(ValueError):
    """A tensor has another shape than the operation's contract says."""

    @classmethod
    def of(cls, name: str, got: torch.Size, expected: str) -> ShapeError:
        """Build the message: which tensor, what it is, what it should be."""
        return cls(f"{name} has shape {list(got)}, expected {expected}")


class BondCsr(NamedTuple):
    """Incoming bonds of every atom of a batch (compressed sparse rows).

    The bonds that point to atom ``v`` are ``offsets[v]:offsets[v + 1]`` of the other two.
    """

    offsets: Tensor  # [V + 1] int32
    source: Tensor  # [E] int32, atom at the other end, counted over the whole batch
    code: Tensor  # [E] int32, bond type * 3 + bond direction

    @property
    def num_atoms(self) -> int:
        """Atoms of the batch (V)."""
        return self.offsets.shape[0] - 1

    def target(self) -> Tensor:
        """The atom each bond points to, ``[E]`` int64, ascending."""
        degree = self.offsets.diff()
        atoms = torch.arange(self.num_atoms, device=degree.device)
        return torch.repeat_interleave(atoms, degree, output_size=self.source.shape[0])
