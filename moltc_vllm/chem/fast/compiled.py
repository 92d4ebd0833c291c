"""RDKit molecules to graphs through `binary`: arrays out, or None where the loops must decide.

Imports numba: ask `route.compiled_reader` for it instead of importing it at a top level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from rdkit import Chem

from moltc_vllm.chem.fast import rdkit_pickle, rdkit_pickle_csr
from moltc_vllm.chem.graph import MolGraph, graph_from_trusted_arrays
from moltc_vllm.chem.packed import PackedMolecule, empty_packed, frozen

_STRUCTURE_ONLY: Final = int(
    Chem.PropertyPickleOptions.NoProps | Chem.PropertyPickleOptions.NoConformers
)


class CompiledReader:
    """Graphs of molecules that the feature tables express."""

    def to_binary(self, mol: Chem.Mol) -> bytes:
        """Write a molecule as `packed_all` reads it."""
        return mol.ToBinary(_STRUCTURE_ONLY)

    def graph(self, mol: Chem.Mol) -> MolGraph | None:
        """Make what `featurize_loops` makes; None if the loops must look at it."""
        data = self.to_binary(mol)
        atoms, bonds = rdkit_pickle.sizes_of(data, 0, len(data))
        if atoms < 0:
            return None
        arrays = (
            np.empty(atoms, np.uint8),
            np.empty(atoms, np.uint8),
            np.empty((2, bonds), np.uint16),
            np.empty(bonds, np.uint8),
            np.empty(bonds, np.uint8),
        )
        if rdkit_pickle.read_graph(data, 0, len(data), *arrays):
            return graph_from_trusted_arrays(*arrays)
        return None

    def packed(self, mol: Chem.Mol) -> PackedMolecule | None:
        """Make what `pack` makes of the graph; None if the loops must look at it."""
        data = self.to_binary(mol)
        atoms, bonds = rdkit_pickle.sizes_of(data, 0, len(data))
        if atoms < 0:
            return None
        packed = empty_packed(atoms, 2 * bonds)
        return frozen(packed) if rdkit_pickle_csr.pack_one(data, 0, len(data), *packed) else None

    def packed_all(
        self, molecules: Sequence[bytes]
    ) -> tuple[npt.NDArray[np.int64], PackedMolecule]:
        """Read many molecules in one call.

        Args:
            molecules: From `to_binary`, so that molecules need not be kept: RDKit's are large.

        Returns:
            ``[B, 2]`` int64, atoms and directed bonds of each molecule, 0 and 0 where the loops
            must look at it; and the arrays of all molecules, one after another.
        """
        offsets = np.zeros(len(molecules) + 1, np.int64)
        np.cumsum([len(data) for data in molecules], out=offsets[1:])
        data = b"".join(molecules)
        sizes = np.empty((len(molecules), 2), np.int64)
        packed = empty_packed(*rdkit_pickle_csr.room_for(data, offsets))
        atoms, bonds = rdkit_pickle_csr.pack_many(data, offsets, sizes, *packed)
        return sizes, PackedMolecule(
            packed.atoms[:atoms],
            packed.degree[:atoms],
            packed.source[:bonds],
            packed.bond_code[:bonds],
        )
