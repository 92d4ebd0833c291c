"""`MolGraph`: a molecule as the encoder's feature indices, plain numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

ATOM_TYPES = 118
"""Elements H to Og; the atom type is the atomic number - 1."""

CHIRALITIES = 3
"""None, clockwise, counter-clockwise. A fourth (other) was listed but has no embedding row."""

BOND_TYPES = 4
"""Single, double, triple, aromatic."""

BOND_DIRECTIONS = 3
"""None, up-right, down-right."""

MAX_ATOMS = 32_767
"""Atom numbers must fit into the signed 16 bits that molecules travel in."""


@dataclass(frozen=True, slots=True, eq=False)
class MolGraph:
    """One molecule, at least one atom (V), any number of bonds (E).

    Any integer arrays are taken; they are checked, copied to the types below and made read-only.
    An index outside its table would be an out-of-bounds read on the GPU, which ends the serving
    process: hence the checks here and not only where graphs are made.

    Raises:
        ValueError: If an array has another shape or an index outside its table.
        TypeError: If an array does not hold integers.

    Source: the published MolTC's features, Hu et al. 2020 (pre-training GNNs).
    """

    atomic_number: npt.NDArray[np.uint8]  # [V] atomic number - 1, as embedding tables count
    chirality: npt.NDArray[np.uint8]  # [V] CHI_UNSPECIFIED 0, TETRAHEDRAL_CW 1, _CCW 2
    bond_index: npt.NDArray[np.uint16]  # [2, E] begin and end atom, each chemical bond once
    bond_type: npt.NDArray[np.uint8]  # [E] SINGLE 0, DOUBLE 1, TRIPLE 2, AROMATIC 3
    bond_direction: npt.NDArray[np.uint8]  # [E] NONE 0, ENDUPRIGHT 1, ENDDOWNRIGHT 2

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

    def _set(self, name: str, dtype: type[Any], shape: tuple[int, ...], size: int) -> None:
        array = np.asarray(getattr(self, name))
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} has dtype {array.dtype}, expected integers")
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
        if array.size and not (array.min() >= 0 and array.max() < size):
            raise ValueError(
                f"{name} has values {array.min()} to {array.max()}, expected 0 to {size - 1}"
            )
        own = array.astype(dtype)
        own.setflags(write=False)
        object.__setattr__(self, name, own)

    def __reduce__(self) -> tuple[Any, ...]:
        # numpy forgets the read-only flag when it pickles; the constructor sets it again.
        return MolGraph, (
            self.atomic_number,
            self.chirality,
            self.bond_index,
            self.bond_type,
            self.bond_direction,
        )

    @property
    def num_atoms(self) -> int:
        """Atoms (V)."""
        return len(self.atomic_number)

    @property
    def num_bonds(self) -> int:
        """Chemical bonds (E), each counted once."""
        return len(self.bond_type)

    def directed(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """List both directions of every bond, in the published code's order.

        Returns:
            ``edge_index`` ``[2, 2 E]`` int64, source and target: begin to end and then end to
            begin of the first bond, of the second, and so on; and ``edge_attr`` ``[2 E, 2]``
            int64, bond type and direction, the same for both (the direction is not flipped).
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
) -> MolGraph:
    """Make a `MolGraph` of arrays that are already what its constructor would make of them.

    Only for what `binary.read_graph` wrote, which has checked every index: the constructor's own
    checks take longer than reading the molecule did. The arrays are taken over, not copied, and
    become read-only.
    """
    graph = object.__new__(MolGraph)
    for name, array in (
        ("atomic_number", atomic_number),
        ("chirality", chirality),
        ("bond_index", bond_index),
        ("bond_type", bond_type),
        ("bond_direction", bond_direction),
    ):
        array.setflags(write=False)
        object.__setattr__(graph, name, array)
    return graph
