"""Parse SMILES with only those sanitization steps whose results are used afterwards.

``Chem.MolFromSmiles`` parses, merges explicit hydrogens, sanitizes and assigns stereochemistry with
all *possible* centers flagged. The functions here run the same steps in the same order, but skip

* the merging of hydrogens: SMILES with a bracket hydrogen need default parsing;
* the clean-up of bonds to metals, if the SMILES has no metal;
* the flags of possible centers: nothing reads them, and ranking all atoms for them takes a fifth of
  the parsing time;
* for graphs of SMILES without a stereo mark, the sanitization steps that change no feature
  (conjugation, hybridization, chirality). Stereo assignment depends on all of them.

They return None for every SMILES that is not plain organic and after every failure. The caller then
uses RDKit's default parsing, so errors do not depend on the path taken. `self_test` compares both
paths at first use, and ``benchmarks/featurize.py --check-all`` on all molecules of the data sets.
"""

from __future__ import annotations

from typing import Any, Final

from rdkit import Chem
from rdkit.Chem import SanitizeFlags

from moltc_vllm.chem.fast.smiles_scan import (
    has_stereo,
    may_have_metal,
    needs_default_parsing,
    scan_smiles,
)

_STEPS_FOR_GRAPH: Final = int(
    SanitizeFlags.SANITIZE_CLEANUP
    | SanitizeFlags.SANITIZE_PROPERTIES
    | SanitizeFlags.SANITIZE_SYMMRINGS
    | SanitizeFlags.SANITIZE_KEKULIZE
    | SanitizeFlags.SANITIZE_FINDRADICALS
    | SanitizeFlags.SANITIZE_SETAROMATICITY
    | SanitizeFlags.SANITIZE_ADJUSTHS
)
_STEPS_FOR_METALS: Final = int(SanitizeFlags.SANITIZE_CLEANUP_ORGANOMETALLICS)
_STEPS_FOR_WRITING: Final = int(SanitizeFlags.SANITIZE_ALL) & ~_STEPS_FOR_METALS


def _unsanitized_params() -> Chem.SmilesParserParams:
    params: Any = Chem.SmilesParserParams()  # RDKit's stubs give its fields the wrong type.
    params.sanitize = False
    params.removeHs = False
    return params


_UNSANITIZED: Final = _unsanitized_params()


def try_parse_for_graph(smiles: str) -> Chem.Mol | None:
    """Parse a SMILES, computing only what `featurize` reads.

    Returns:
        A molecule that must not be written as SMILES or searched for substructures; None if the
        SMILES needs default parsing.
    """
    kinds = scan_smiles(smiles)
    stereo = has_stereo(kinds)
    return _try_parse(smiles, kinds, _STEPS_FOR_WRITING if stereo else _STEPS_FOR_GRAPH, stereo)


def try_parse_for_writing(smiles: str) -> Chem.Mol | None:
    """Parse a SMILES, computing only what `featurize` and ``MolToSmiles`` read.

    Returns:
        The molecule; None if the SMILES needs default parsing.
    """
    return _try_parse(smiles, scan_smiles(smiles), _STEPS_FOR_WRITING, True)


def _try_parse(smiles: str, kinds: bytes, steps: int, assign_stereo: bool) -> Chem.Mol | None:
    if needs_default_parsing(kinds):
        return None
    mol = Chem.MolFromSmiles(smiles, _UNSANITIZED)
    if mol is None:
        return None
    try:
        Chem.SanitizeMol(mol, steps | _STEPS_FOR_METALS if may_have_metal(kinds) else steps)
        if assign_stereo:
            Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    except (ValueError, RuntimeError):
        return None
    return mol
