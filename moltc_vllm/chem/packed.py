"""`PackedMolecule`: the model's input format of a molecule, with its bonds in CSR form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moltc_vllm.chem.graph import BOND_DIRECTIONS, MolGraph


class PackedMolecule(NamedTuple):
    """Graph of one molecule in small integer types, with atom indices local to the molecule.

    It has V atoms and E chemical bonds, each of which is listed in both directions. The vector of
    descriptors is present only if the model's configuration asks for it; graphs are cached without.
    """

    atoms: npt.NDArray[np.uint8]  # [V, 2] atom type, chirality
    degree: npt.NDArray[np.int16]  # [V] number of incoming bonds
    source: npt.NDArray[np.int16]  # [2 E] source atom of each incoming bond, sorted by target
    bond_code: npt.NDArray[np.uint8]  # [2 E] bond type * 3 + direction
    detail: npt.NDArray[np.uint16]  # [V] code of further atom features; see `atom_detail`
    descriptors: npt.NDArray[np.float32] | None = None  # [F]; see `descriptor_vector`

    def arrays(self) -> list[npt.NDArray[Any]]:
        """List the arrays that are present."""
        return [array for array in self if array is not None]

    def copy(self) -> PackedMolecule:
        """Copy the arrays, so that they do not keep a larger array in memory."""
        return PackedMolecule(*(array.copy() for array in self.arrays()))


def pack(graph: MolGraph) -> PackedMolecule:
    """Convert a graph to CSR form: list every atom's incoming bonds.

    Each chemical bond counts in both directions. The bonds of one target keep their order: first
    the bonds that end at it, then those that begin at it. This is the reference implementation;
    `rdkit_pickle_csr.pack_one` computes the same from RDKit's pickle.

    Args:
        graph: Graph of one molecule.

    Returns:
        The packed graph, read-only.
    """
    begin, end = graph.bond_index.astype(np.int16)
    target = np.concatenate([end, begin])
    order = np.argsort(target, kind="stable")
    code = (graph.bond_type * BOND_DIRECTIONS + graph.bond_direction).astype(np.uint8)
    return freeze(
        PackedMolecule(
            atoms=np.stack([graph.atomic_number, graph.chirality], axis=1).astype(np.uint8),
            degree=np.bincount(target, minlength=graph.num_atoms).astype(np.int16),
            source=np.concatenate([begin, end])[order],
            bond_code=np.concatenate([code, code])[order],
            detail=graph.detail.copy(),
        )
    )


def freeze(packed: PackedMolecule) -> PackedMolecule:
    """Make the arrays read-only, since packed molecules are cached and shared."""
    for array in packed.arrays():
        array.setflags(write=False)
    return packed


def concatenate(molecules: Sequence[PackedMolecule]) -> PackedMolecule:
    """Concatenate the arrays of several molecules, at least one.

    Returns:
        Arrays over all atoms and bonds, and descriptors ``[B, F]`` of the B molecules. Atom indices
        stay local to each molecule.

    Raises:
        ValueError: If only some of the molecules have descriptors.
    """
    vectors = [packed.descriptors for packed in molecules if packed.descriptors is not None]
    if vectors and len(vectors) < len(molecules):
        raise ValueError("some molecules of a batch have descriptors and others do not")
    columns = zip(*(packed[:-1] for packed in molecules), strict=True)
    joined = PackedMolecule(*map(np.concatenate, columns))
    return joined._replace(descriptors=np.stack(vectors)) if vectors else joined


def empty_packed(atoms: int, bonds: int) -> PackedMolecule:
    """Allocate uninitialized arrays.

    Args:
        atoms: Number of atoms (V).
        bonds: Number of directed bonds (2 E).
    """
    return PackedMolecule(
        np.empty((atoms, 2), np.uint8),
        np.empty(atoms, np.int16),
        np.empty(bonds, np.int16),
        np.empty(bonds, np.uint8),
        np.empty(atoms, np.uint16),
    )
