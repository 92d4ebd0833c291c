"""`MolGraph`: the encoder's feature indices of one molecule, as numpy arrays.

The feature tables are listed in ``docs/concepts/published-model.md``, "Molecule graph features",
and in ``docs/concepts/atom-features.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moltc_vllm.chem.atom_detail import DETAIL_CODES

ATOM_TYPES = 118
"""Number of elements, H to Og; the atom type is the atomic number - 1."""

CHIRALITIES = 3
"""None, clockwise, counter-clockwise. RDKit's fourth tag (other) has no embedding row."""

BOND_TYPES = 4
"""Single, double, triple, aromatic."""

BOND_DIRECTIONS = 3
"""None, up-right, down-right."""

MAX_ATOMS = 32_767
"""Largest number of atoms: `PackedMolecule` stores atom indices as signed 16-bit integers."""


@dataclass(frozen=True, slots=True, eq=False)
class MolGraph:
    """Graph of one molecule with V atoms (at least one) and E bonds.

    The constructor accepts integer arrays of any type, checks them, copies them to the types below
    and makes the copies read-only. It checks every index because an index outside its embedding
    table would be an out-of-bounds read on the GPU, which kills the serving process.

    Raises:
        ValueError: If an array has another shape or an index outside its table.
        TypeError: If an array does not hold integers.

    Source: Hu et al. 2020 (Strategies for Pre-training Graph Neural Networks), as in MolTC;
    ``docs/concepts/published-model.md``, "Molecule graph features".
    """

    atomic_number: npt.NDArray[np.uint8]  # [V] atomic number - 1, a row of the embedding table
    chirality: npt.NDArray[np.uint8]  # [V] CHI_UNSPECIFIED 0, TETRAHEDRAL_CW 1, _CCW 2
    bond_index: npt.NDArray[np.uint16]  # [2, E] begin and end atom of each chemical bond
    bond_type: npt.NDArray[np.uint8]  # [E] SINGLE 0, DOUBLE 1, TRIPLE 2, AROMATIC 3
    bond_direction: npt.NDArray[np.uint8]  # [E] NONE 0, ENDUPRIGHT 1, ENDDOWNRIGHT 2
    detail: npt.NDArray[np.uint16]  # [V] charge, hydrogens, ring, ...; see `atom_detail`

    def __post_init__(self) -> None:
        atoms = len(self.atomic_number)
        if not 1 <= atoms <= MAX_ATOMS:
            raise ValueError(f"a molecular graph has {atoms} atoms, expected 1 to {MAX_ATOMS}")
        bonds = len(self.bond_type)
        self._set("atomic_number", np.uint8, (atoms,), ATOM_TYPES)
        self._set("chirality", np.uint8, (atoms,), CHIRALITIES)
        self._set("bond_index", np.uint16, (2, bonds), atoms)
        self._set("bond_type", np.uint8, (bonds,), BOND_TYPES)
        self._set("bond_direction", np.uint8, (bonds,), BOND_DIRECTIONS)
        self._set("detail", np.uint16, (atoms,), DETAIL_CODES)

    def _set(self, name: str, dtype: type[Any], shape: tuple[int, ...], table_size: int) -> None:
        array = np.asarray(getattr(self, name))
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} has dtype {array.dtype}, expected integers")
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
        if array.size and not (array.min() >= 0 and array.max() < table_size):
            raise ValueError(
                f"{name} has values {array.min()} to {array.max()}, expected 0 to {table_size - 1}"
            )
        copy = array.astype(dtype)
        copy.setflags(write=False)
        object.__setattr__(self, name, copy)

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling loses numpy's read-only flag; the constructor sets it again.
        return MolGraph, (
            self.atomic_number,
            self.chirality,
            self.bond_index,
            self.bond_type,
            self.bond_direction,
            self.detail,
        )

    @property
    def num_atoms(self) -> int:
        """Number of atoms (V)."""
        return len(self.atomic_number)

    @property
    def num_bonds(self) -> int:
        """Number of chemical bonds (E), each counted once."""
        return len(self.bond_type)

    def directed(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """List both directions of every bond, in the published code's order.

        Returns:
            ``edge_index`` ``[2, 2 E]`` int64, source and target atoms: begin to end, then end to
            begin, bond by bond; and ``edge_attr`` ``[2 E, 2]`` int64, bond type and bond
            direction, the same for both edges of a bond (the direction is not flipped).
        """
        both = np.stack([self.bond_index, self.bond_index[::-1]], axis=2)  # [2, E, 2]
        attributes = np.stack([self.bond_type, self.bond_direction], axis=1)  # [E, 2]
        return (
            both.reshape(2, 2 * self.num_bonds).astype(np.int64),
            attributes.repeat(2, axis=0).astype(np.int64),
        )


def graph_from_trusted_arrays(
    atomic_number: npt.NDArray[np.uint8],
    chirality: npt.NDArray[np.uint8],
    bond_index: npt.NDArray[np.uint16],
    bond_type: npt.NDArray[np.uint8],
    bond_direction: npt.NDArray[np.uint8],
    detail: npt.NDArray[np.uint16],
) -> MolGraph:
    """Build a `MolGraph` without the constructor's checks and copies.

    Only for the output of `rdkit_pickle.read_graph`, which has the final types and whose indices
    it has checked: the constructor's checks would take longer than reading the molecule. The
    graph keeps the arrays without copying them and makes them read-only.

    Args:
        atomic_number: ``[V]``, values below `ATOM_TYPES`.
        chirality: ``[V]``, values below `CHIRALITIES`.
        bond_index: ``[2, E]``, values below V.
        bond_type: ``[E]``, values below `BOND_TYPES`.
        bond_direction: ``[E]``, values below `BOND_DIRECTIONS`.
        detail: ``[V]``, values below `DETAIL_CODES`.
    """
    graph = object.__new__(MolGraph)
    for name, array in (
        ("atomic_number", atomic_number),
        ("chirality", chirality),
        ("bond_index", bond_index),
        ("bond_type", bond_type),
        ("bond_direction", bond_direction),
        ("detail", detail),
    ):
        array.setflags(write=False)
        object.__setattr__(graph, name, array)
    return graph
