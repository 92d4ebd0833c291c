"""Tanimoto similarity of Morgan counts, as a kernel between molecules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
from rdkit.DataStructs import BulkTanimotoSimilarity

from baselines.answers import Array
from baselines.molecule_features import MORGAN_RADIUS, read_molecule


def tanimoto_kernel(molecules: Sequence[str], known: Sequence[str]) -> Array:
    """Compute the similarity of molecules to known ones, ``[molecules, known]``.

    Counts are compared by the sum of their minima over the sum of their maxima.

    Args:
        molecules: SMILES.
        known: SMILES of the columns.

    Raises:
        ValueError: If RDKit cannot read a molecule.
    """
    generator = GetMorganGenerator(radius=MORGAN_RADIUS)
    counts = {
        smiles: generator.GetSparseCountFingerprint(read_molecule(smiles))
        for smiles in dict.fromkeys([*molecules, *known])
    }
    columns = [counts[smiles] for smiles in known]
    kernel = np.empty((len(molecules), len(known)))
    for row, smiles in zip(kernel, molecules, strict=True):
        row[:] = BulkTanimotoSimilarity(counts[smiles], columns)
    return kernel
