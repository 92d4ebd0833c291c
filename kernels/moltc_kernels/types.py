"""Types shared by the operations: bond lists of a ragged batch, and the error for wrong shapes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CHIRALITIES = 3
"""Number of chirality tags; an atom code is ``type * CHIRALITIES + chirality``."""

BOND_DIRECTIONS = 3
"""Number of bond directions; a bond code is ``type * BOND_DIRECTIONS + direction``."""

SELF_LOOP_CODE = 0
"""Bond code of an atom's self loop: type 0 and direction 0, as in the published model."""


class ShapeError(ValueError):
    """A tensor has a shape that the operation does not accept."""

    @classmethod
    def of(cls, name: str, got: torch.Size, expected: str) -> ShapeError:
        """Create the error with a message that names the tensor and both shapes."""
        return cls(f"{name} has shape {list(got)}, expected {expected}")


class BondCsr(NamedTuple):
    """Incoming bonds of every atom of a batch, in CSR form (compressed sparse rows).

    Entries ``offsets[v]:offsets[v + 1]`` of ``source`` and ``code`` are the bonds to atom ``v``.
    """

    offsets: Tensor  # [V + 1] int32
    source: Tensor  # [E] int32, index of the source atom in the batch
    code: Tensor  # [E] int32, bond type * 3 + bond direction

    @property
    def num_atoms(self) -> int:
        """Number of atoms of the batch (V)."""
        return self.offsets.shape[0] - 1

    def target(self) -> Tensor:
        """Compute the target atom of each bond, ``[E]`` int64, ascending."""
        degree = self.offsets.diff()
        atoms = torch.arange(self.num_atoms, device=degree.device)
        return torch.repeat_interleave(atoms, degree, output_size=self.source.shape[0])
