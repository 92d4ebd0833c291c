"""Keys of molecules and pairs: equal keys mean the same molecule or pair."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from rdkit import Chem

from moltc_vllm.chem import MoleculeError, canonical_key, parse_smiles
from moltc_vllm.chem.rdkit_log import QuietLog

_CACHE_SIZE = 1 << 17


def unordered(molecules: Iterable[str]) -> tuple[str, ...]:
    """Sort the molecules of a pair, so that both orders of a pair are equal."""
    return tuple(sorted(molecules))


@lru_cache(maxsize=_CACHE_SIZE)
def molecule_key(smiles: str) -> str:
    """Return the canonical key of a molecule, or the text itself if it cannot be parsed."""
    try:
        return canonical_key(smiles)
    except MoleculeError:
        return smiles


@lru_cache(maxsize=_CACHE_SIZE)
def flat_key(smiles: str) -> str:
    """Return the canonical SMILES without stereochemistry and isotopes.

    TWOSIDES has no stereochemistry, so the same drug has another SMILES in other data sets.

    Args:
        smiles: SMILES of the molecule; a text that cannot be parsed is returned as it is.
    """
    try:
        molecule = parse_smiles(smiles)
    except MoleculeError:
        return smiles
    with QuietLog():
        flat = Chem.MolToSmiles(molecule, isomericSmiles=False)
        # [2H] becomes an explicit hydrogen, which only parsing the text again makes implicit.
        parsed_again = Chem.MolFromSmiles(flat)
        return Chem.MolToSmiles(parsed_again) if parsed_again is not None else flat
