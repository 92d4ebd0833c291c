"""`BatchMolGraph`: graphs of several molecules, concatenated without padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moltc_kernels import BondCsr
from moltc_vllm.chem import MolGraph, PackedMolecule, pack
from moltc_vllm.chem.packed import concatenate


@dataclass(frozen=True, slots=True)
class BatchMolGraph:
    """A ragged batch of molecular graphs on one device.

    Attributes:
        atoms: ``[V, 3]`` int32, atom type (atomic number - 1), chirality and detail code
            (`moltc_vllm.chem.atom_detail`) of each atom.
        bonds: Incoming bonds of the V atoms, as compressed sparse rows.
        molecule_offsets: ``[B + 1]`` int32, index of each molecule's first atom.
        descriptors: ``[B, F]`` float32, vector of descriptors of each molecule
            (`moltc_vllm.chem.descriptor_vector`); ``None`` if molecules were packed without.
    """

    atoms: Tensor
    bonds: BondCsr
    molecule_offsets: Tensor
    descriptors: Tensor | None = None

    @property
    def num_molecules(self) -> int:
        """Number of molecules in the batch (B)."""
        return self.molecule_offsets.shape[0] - 1

    @classmethod
    def from_packed(
        cls,
        atoms: Tensor,
        degree: Tensor,
        source: Tensor,
        bond_code: Tensor,
        detail: Tensor,
        num_atoms: Tensor,
        descriptors: Tensor | None = None,
    ) -> BatchMolGraph:
        """Build a batch from the concatenated arrays of packed molecules.

        Args:
            atoms: ``[V, 2]`` integers.
            degree: ``[V]`` integers, number of incoming bonds of each atom.
            source: ``[E]`` integers, atom at the other end of each bond, counted within its
                molecule.
            bond_code: ``[E]`` integers, type and direction of each bond.
            detail: ``[V]`` integers, further features of each atom.
            num_atoms: ``[B]`` integers; may be on the host while the others are on a device.
            descriptors: ``[B, F]`` float32, if the molecules have descriptors.
        """
        device = atoms.device
        offsets = _offsets(num_atoms).to(device)
        # Without `output_size` each call would wait for the device to learn the result's size.
        first_atom = torch.repeat_interleave(
            offsets[:-1], num_atoms.to(device).long(), output_size=atoms.shape[0]
        )  # [V] first atom of the molecule that an atom belongs to
        shift = torch.repeat_interleave(first_atom, degree.long(), output_size=source.shape[0])
        bonds = BondCsr(_offsets(degree), source.int() + shift, bond_code.int())
        table = torch.cat([atoms.int(), detail.int()[:, None]], 1)  # [V, 3]
        return cls(table, bonds, offsets, descriptors)

    @classmethod
    def from_molecules(
        cls, molecules: Sequence[PackedMolecule], device: torch.device | str = "cpu"
    ) -> BatchMolGraph:
        """Concatenate packed molecules.

        Args:
            molecules: Molecules to concatenate, at least one.
            device: Device of the batch.

        Raises:
            ValueError: If there are no molecules, or only some of them have descriptors.
        """
        if not molecules:
            raise ValueError("a batch needs at least one molecule")
        atoms, degree, source, code, detail, *descriptors = packed_tensors(molecules, device)
        num_atoms = torch.tensor([len(molecule.degree) for molecule in molecules])
        return cls.from_packed(atoms, degree, source, code, detail, num_atoms, *descriptors)

    @classmethod
    def from_graphs(
        cls, graphs: Iterable[MolGraph], device: torch.device | str = "cpu"
    ) -> BatchMolGraph:
        """Pack and concatenate molecular graphs.

        Args:
            graphs: Graphs to concatenate, at least one.
            device: Device of the batch.

        Raises:
            ValueError: If there are no graphs.
        """
        return cls.from_molecules([pack(graph) for graph in graphs], device)


def packed_tensors(molecules: Sequence[PackedMolecule], device: torch.device | str) -> list[Tensor]:
    """Concatenate packed molecules to tensors, in the order of `PackedMolecule.arrays`.

    Args:
        molecules: Molecules to concatenate, at least one; all of them with descriptors, or none.
        device: Device of the tensors.

    Raises:
        ValueError: If only some of the molecules have descriptors.
    """
    joined = concatenate(molecules)
    # Devices have few operations on uint16, and all codes fit int16.
    joined = joined._replace(detail=joined.detail.view(np.int16))
    return [torch.from_numpy(array).to(device) for array in joined.arrays()]


def split_by_atoms(
    molecules: Sequence[PackedMolecule], max_atoms: int
) -> list[list[PackedMolecule]]:
    """Split molecules, in order, into batches of limited size.

    Args:
        molecules: Packed molecules.
        max_atoms: Maximum number of atoms of a batch; a larger molecule is a batch of its own.
    """
    batches: list[list[PackedMolecule]] = []
    remaining = 0
    for molecule in molecules:
        size = len(molecule.degree)
        if size > remaining or not batches:
            batches.append([])
            remaining = max_atoms
        batches[-1].append(molecule)
        remaining -= size
    return batches


def _offsets(sizes: Tensor) -> Tensor:  # [N] -> [N + 1] int32
    total = torch.cumsum(sizes, 0, dtype=torch.int32)
    return torch.cat([total.new_zeros(1), total])
