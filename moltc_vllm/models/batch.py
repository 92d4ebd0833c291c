"""`BatchMolGraph`: the graphs of several molecules, one after another, nothing padded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moltc_kernels import BondCsr
from moltc_vllm.chem import MolGraph, PackedMolecule, pack


@dataclass(frozen=True, slots=True)
class BatchMolGraph:
    """A ragged batch of molecular graphs on one device."""

    atoms: Tensor  # [V, 2] int32: atom type (atomic number - 1), chirality
    bonds: BondCsr  # incoming bonds of the V atoms
    molecule_offsets: Tensor  # [B + 1] int32: where each molecule's atoms begin

    @property
    def num_molecules(self) -> int:
        """Molecules of the batch (B)."""
        return self.molecule_offsets.shape[0] - 1

    @classmethod
    def from_packed(
        cls, atoms: Tensor, degree: Tensor, source: Tensor, bond_code: Tensor, num_atoms: Tensor
    ) -> BatchMolGraph:
        """Join packed molecules that lie one after another.

        Args:
            atoms: ``[V, 2]`` integers.
            degree: ``[V]`` integers, incoming bonds of each atom.
            source: ``[E]`` integers, atom at the other end, counted within its molecule.
            bond_code: ``[E]`` integers.
            num_atoms: ``[B]`` integers; may be on the host while the others are on a device.
        """
        device = atoms.device
        offsets = _offsets(num_atoms).to(device)
        # With the sizes of the results given, no device has to be waited for.
        owner_of_atom = torch.repeat_interleave(
            offsets[:-1], num_atoms.to(device).long(), output_size=atoms.shape[0]
        )
        shift = torch.repeat_interleave(owner_of_atom, degree.long(), output_size=source.shape[0])
        bonds = BondCsr(_offsets(degree), source.int() + shift, bond_code.int())
        return cls(atoms.int(), bonds, offsets)

    @classmethod
    def from_molecules(
        cls, molecules: Sequence[PackedMolecule], device: torch.device | str = "cpu"
    ) -> BatchMolGraph:
        """Join several packed molecules.

        Raises:
            ValueError: If there is none.
        """
        if not molecules:
            raise ValueError("a batch needs at least one molecule")
        atoms, degree, source, code = (
            torch.from_numpy(np.concatenate(column)).to(device)
            for column in zip(*molecules, strict=True)
        )
        num_atoms = torch.tensor([len(molecule.degree) for molecule in molecules])
        return cls.from_packed(atoms, degree, source, code, num_atoms)

    @classmethod
    def from_graphs(
        cls, graphs: Iterable[MolGraph], device: torch.device | str = "cpu"
    ) -> BatchMolGraph:
        """Join the graphs of several molecules.

        Raises:
            ValueError: If there is none.
        """
        return cls.from_molecules([pack(graph) for graph in graphs], device)


def split_by_atoms(molecules: Sequence[PackedMolecule], most: int) -> list[list[PackedMolecule]]:
    """Split molecules, in order, into batches of at most so many atoms, or of one molecule."""
    batches: list[list[PackedMolecule]] = []
    room = 0
    for molecule in molecules:
        size = len(molecule.degree)
        if size > room or not batches:
            batches.append([])
            room = most
        batches[-1].append(molecule)
        room -= size
    return batches


def _offsets(sizes: Tensor) -> Tensor:
    total = torch.cumsum(sizes, 0, dtype=torch.int32)
    return torch.cat([total.new_zeros(1), total])
