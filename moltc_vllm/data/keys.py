"""Which texts are the same molecule, and which pairs the same pair."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from rdkit import Chem

from moltc_vllm.chem import MoleculeError, canonical_key, parse_smiles
from moltc_vllm.chem.rdkit_log import QuietLog

_KEPT = 1 << 17


def unordered(molecules: Iterable[str]) -> tuple[str, ...]:
    """A pair without its order."""
    return tuple(sorted(molecules))


@lru_cache(maxsize=_KEPT)
def molecule_key(smiles: str) -> str:
    """The canonical key; a text that is no molecule is only the same as itself."""
    try:
        return canonical_key(smiles)
    except MoleculeError:
        return smiles


@lru_cache(maxsize=_KEPT)
def flat_key(smiles: str) -> str:
    """The molecule without stereochemistry and isotopes; a text that is none stays as it is.

    TWOSIDES has no stereochemistry at all, so that the same drug has other SMILES elsewhere.
    """
    try:
        molecule = parse_smiles(smiles)
    except MoleculeError:
        return smiles
    with QuietLog():
        flat = Chem.MolToSmiles(molecule, isomericSmiles=False)
        # Once more: what was [2H] is an explicit hydrogen in the text, an implicit one after it.
        again = Chem.MolFromSmiles(flat)
        return Chem.MolToSmiles(again) if again is not None else flat
