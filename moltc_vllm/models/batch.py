"""`BatchMolGraph`: the graphs of several molecules, one after another, nothing padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moltc_kernels import BondCsr
from moltc_kernels.contracts import BOND_DIRECTIONS
from moltc_vllm.chem import MolGraph


class PackedMolecule(NamedTuple):
    """One molecule's graph as it travels to the model: small integers, local atom numbers."""

    atoms: npt.NDArray[np.uint8]  # [V, 2] atom type, chirality
    degree: npt.NDArray[np.int16]  # [V] incoming bonds of each atom
    source: npt.NDArray[np.int16]  # [2 E] atom at the other end, bonds sorted by target
    bond_code: npt.NDArray[np.uint8]  # [2 E] bond type * 3 + direction


def pack(graph: MolGraph) -> PackedMolecule:
    """List every atom's incoming bonds; each chemical bond counts in both directions."""
    begin, end = graph.bond_index.astype(np.int16)
    target = np.concatenate([end, begin])
    order = np.argsort(target, kind="stable")
    code = (graph.bond_type * BOND_DIRECTIONS + graph.bond_direction).astype(np.uint8)
    return PackedMolecule(
        atoms=np.stack([graph.atomic_number, graph.chirality], axis=1).astype(np.uint8),
        degree=np.bincount(target, minlength=graph.num_atoms).astype(np.int16),
        source=np.concatenate([begin, end])[order],
        bond_code=np.concatenate([code, code])[order],
    )


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
    def from_graphs(
        cls, graphs: Sequence[MolGraph], device: torch.device | str = "cpu"
    ) -> BatchMolGraph:
        """Join the graphs of several molecules.

        Raises:
            ValueError: If there is none.
        """
        if not graphs:
            raise ValueError("a batch needs at least one molecule")
        packed = [pack(graph) for graph in graphs]
        atoms, degree, source, code = (
            torch.from_numpy(np.concatenate(column)).to(device)
            for column in zip(*packed, strict=True)
        )
        num_atoms = torch.tensor([graph.num_atoms for graph in graphs], device=device)
        return cls.from_packed(atoms, degree, source, code, num_atoms)


def _offsets(sizes: Tensor) -> Tensor:
    total = torch.cumsum(sizes, 0, dtype=torch.int32)
    return torch.cat([total.new_zeros(1), total])
