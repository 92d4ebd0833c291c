"""Morgan fingerprints as words of bits, and the search for the most similar molecule."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.DataStructs import BitVectToBinaryText

from moltc_vllm.chem.graph import MAX_ATOMS
from moltc_vllm.chem.limits import MoleculeLimits
from moltc_vllm.chem.parse import parse_smiles

RADIUS, BITS = 2, 1024
WORDS = BITS // 64

Words = NDArray[np.uint64]

_NO_LIMITS = MoleculeLimits(max_atoms=MAX_ATOMS, max_characters=1 << 20)


class FingerprintTable(NamedTuple):
    """Fingerprints in ascending order of their number of bits.

    Attributes:
        words: ``[N, WORDS]`` uint64.
        counts: ``[N]`` int64, number of bits of each.
    """

    words: Words
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, words: Words) -> FingerprintTable:
        """Sort fingerprints, ``[N, WORDS]``, into a table."""
        counts = np.unpackbits(words.view(np.uint8), axis=1).sum(axis=1, dtype=np.int64)
        order = np.argsort(counts, kind="stable")
        return cls(np.ascontiguousarray(words[order]), counts[order])


def fingerprint(smiles: str) -> Words:
    """Compute the Morgan fingerprint of radius 2 in 1,024 bits, without chirality.

    Args:
        smiles: SMILES of the molecule.

    Returns:
        ``[WORDS]`` uint64.

    Raises:
        MoleculeError: If the molecule cannot be parsed.
    """
    molecule = parse_smiles(smiles, _NO_LIMITS)
    bits = _generator().GetFingerprint(molecule)
    return np.frombuffer(BitVectToBinaryText(bits), dtype="<u8").astype(np.uint64)


def log_counts(molecule: Chem.Mol) -> NDArray[np.float64]:
    """Count the environments of up to two bonds, folded to 1,024 numbers, as ``log(1 + count)``.

    Logarithms keep the counts of large molecules moderate.

    Args:
        molecule: Sanitized molecule.

    Returns:
        ``[BITS]`` float64.
    """
    counts = _generator().GetCountFingerprintAsNumPy(molecule)
    logarithms: NDArray[np.float64] = np.log1p(counts.astype(np.float64))
    return logarithms


def max_similarity(table: FingerprintTable, query: Words) -> float:
    """Return the Tanimoto similarity to the most similar fingerprint; 0 for an empty table.

    Args:
        table: Fingerprints to search.
        query: ``[WORDS]`` uint64, fingerprint to compare.
    """
    if not len(table.counts):
        return 0.0
    return float(_search()(table.words, table.counts, query))


@cache
def _generator() -> Any:
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    return GetMorganGenerator(radius=RADIUS, fpSize=BITS)


@cache
def _search() -> Any:
    """Return the compiled search; numba takes half a second to import."""
    from moltc_vllm.chem.fast.similarity import nearest

    return nearest
