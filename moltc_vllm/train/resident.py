"""Graphs of all molecules of a run as a few arrays on the device, from which batches are gathered.

Concatenating hundreds of small arrays per step costs more than the model's smaller layers, and on a
GPU every array would be a transfer of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from moltc_vllm.chem import PackedMolecule
from moltc_vllm.models.batch import BatchMolGraph, packed_tensors


class ResidentMolecules:
    """Packed molecules as concatenated arrays on one device.

    Args:
        molecules: Packed molecules, at least one; all of them with descriptors, or none.
        device: Device of the arrays.
    """

    def __init__(self, molecules: Sequence[PackedMolecule], device: torch.device | str) -> None:
        self._atoms, self._degree, self._source, self._code, self._detail, *rest = packed_tensors(
            molecules, device
        )
        self._descriptors: Tensor | None = rest[0] if rest else None
        num_atoms = torch.tensor([len(molecule.degree) for molecule in molecules])
        num_bonds = torch.tensor([len(molecule.source) for molecule in molecules])
        # Sizes stay on the host, so that no step waits for the device to learn a result's size.
        self._num_atoms, self._num_bonds = num_atoms, num_bonds
        self._first_atom = num_atoms.cumsum(0) - num_atoms
        self._first_bond = num_bonds.cumsum(0) - num_bonds

    @property
    def device(self) -> torch.device:
        """Device of the arrays."""
        return self._atoms.device

    def __len__(self) -> int:
        return len(self._num_atoms)

    def gather(self, index: Tensor) -> BatchMolGraph:
        """Collect the graphs of some molecules.

        Args:
            index: ``[B]`` int64 on the host, molecules in the order of the batch.
        """
        device = self.device
        num_atoms, num_bonds = self._num_atoms[index], self._num_bonds[index]
        atoms = _ranges(self._first_atom[index], num_atoms).to(device)
        bonds = _ranges(self._first_bond[index], num_bonds).to(device)
        return BatchMolGraph.from_packed(
            self._atoms[atoms],
            self._degree[atoms],
            self._source[bonds],
            self._code[bonds],
            self._detail[atoms],
            num_atoms,
            None if self._descriptors is None else self._descriptors[index.to(device)],
        )


def _ranges(first: Tensor, sizes: Tensor) -> Tensor:
    """Concatenate the ranges ``first[i] .. first[i] + sizes[i]``; ``[B]`` to ``[sum sizes]``."""
    total = int(sizes.sum())
    shift = first - (sizes.cumsum(0) - sizes)
    return torch.arange(total) + torch.repeat_interleave(shift, sizes, output_size=total)
