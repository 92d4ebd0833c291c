"""`CompiledReader`: converts RDKit molecules to graphs through `rdkit_pickle`.

This module imports numba, which is slow: call `dispatch.compiled_reader` instead of importing it at
the top of a module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from rdkit import Chem

from moltc_vllm.chem.fast import rdkit_pickle, rdkit_pickle_csr
from moltc_vllm.chem.graph import MolGraph, graph_from_trusted_arrays
from moltc_vllm.chem.packed import PackedMolecule, empty_packed, freeze

_STRUCTURE_ONLY: Final = int(
    Chem.PropertyPickleOptions.NoProps | Chem.PropertyPickleOptions.NoConformers
)


class CompiledReader:
    """Reader that featurizes molecules from their RDKit pickles in compiled code.

    It does not support every molecule; `featurize_loops` handles the others.
    """

    def to_binary(self, mol: Chem.Mol) -> bytes:
        """Pickle a molecule without properties and conformers, as `pack_pickles` expects it."""
        return mol.ToBinary(_STRUCTURE_ONLY)

    def featurize(self, mol: Chem.Mol) -> MolGraph | None:
        """Compute the result of `featurize_loops`, or None if the molecule is not supported."""
        data = self.to_binary(mol)
        atoms, bonds = rdkit_pickle.read_sizes(data, 0, len(data))
        if atoms < 0:
            return None
        arrays = (
            np.empty(atoms, np.uint8),
            np.empty(atoms, np.uint8),
            np.empty((2, bonds), np.uint16),
            np.empty(bonds, np.uint8),
            np.empty(bonds, np.uint8),
            np.empty(atoms, np.uint16),
        )
        if rdkit_pickle.read_graph(data, 0, len(data), *arrays):
            return graph_from_trusted_arrays(*arrays)
        return None

    def featurize_packed(self, mol: Chem.Mol) -> PackedMolecule | None:
        """Compute the packed graph, or None if the molecule is not supported."""
        data = self.to_binary(mol)
        atoms, bonds = rdkit_pickle.read_sizes(data, 0, len(data))
        if atoms < 0:
            return None
        packed = empty_packed(atoms, 2 * bonds)
        return (
            freeze(packed)
            if rdkit_pickle_csr.pack_one(data, 0, len(data), *packed.arrays())
            else None
        )

    def pack_pickles(
        self, pickles: Sequence[bytes]
    ) -> tuple[npt.NDArray[np.int64], PackedMolecule]:
        """Pack several molecules in one call.

        Args:
            pickles: Results of `to_binary`, which are much smaller than RDKit's molecules.

        Returns:
            Sizes ``[B, 2]`` int64, the numbers of atoms and directed bonds of each molecule, 0
            and 0 for unsupported ones; and the concatenated arrays of all molecules.
        """
        offsets = np.zeros(len(pickles) + 1, np.int64)
        np.cumsum([len(data) for data in pickles], out=offsets[1:])
        data = b"".join(pickles)
        sizes = np.empty((len(pickles), 2), np.int64)
        packed = empty_packed(*rdkit_pickle_csr.total_sizes(data, offsets))
        atoms, bonds = rdkit_pickle_csr.pack_many(data, offsets, sizes, *packed.arrays())
        return sizes, PackedMolecule(
            packed.atoms[:atoms],
            packed.degree[:atoms],
            packed.source[:bonds],
            packed.bond_code[:bonds],
            packed.detail[:atoms],
        )
