"""`PackedMolecule`: a molecule as it travels to the model, with its bonds in CSR form."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moltc_vllm.chem.graph import BOND_DIRECTIONS, MolGraph


class PackedMolecule(NamedTuple):
    """One molecule's graph as it travels to the model: small integers, local atom numbers."""

    atoms: npt.NDArray[np.uint8]  # [V, 2] atom type, chirality
    degree: npt.NDArray[np.int16]  # [V] incoming bonds of each atom
    source: npt.NDArray[np.int16]  # [2 E] atom at the other end, bonds sorted by target
    bond_code: npt.NDArray[np.uint8]  # [2 E] bond type * 3 + direction


def pack(graph: MolGraph) -> PackedMolecule:
    """List every atom's incoming bonds; each chemical bond counts in both directions.

    The bonds of one target keep their order: first those that end at it, then those that begin.
    This is the plain form and the truth; `binary.pack_one` makes the same of RDKit's bytes.

    Returns:
        Read-only arrays.
    """
    begin, end = graph.bond_index.astype(np.int16)
    target = np.concatenate([end, begin])
    order = np.argsort(target, kind="stable")
    code = (graph.bond_type * BOND_DIRECTIONS + graph.bond_direction).astype(np.uint8)
    return frozen(
        PackedMolecule(
            atoms=np.stack([graph.atomic_number, graph.chirality], axis=1).astype(np.uint8),
            degree=np.bincount(target, minlength=graph.num_atoms).astype(np.int16),
            source=np.concatenate([begin, end])[order],
            bond_code=np.concatenate([code, code])[order],
        )
    )


def frozen(packed: PackedMolecule) -> PackedMolecule:
    """Make the arrays read-only: packed molecules are cached and shared."""
    for array in packed:
        array.setflags(write=False)
    return packed


def empty_packed(atoms: int, bonds: int) -> PackedMolecule:
    """Room for some atoms and directed bonds, not yet written."""
    return PackedMolecule(
        np.empty((atoms, 2), np.uint8),
        np.empty(atoms, np.int16),
        np.empty(bonds, np.int16),
        np.empty(bonds, np.uint8),
    )
