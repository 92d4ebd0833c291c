"""SMILES to RDKit molecules by only those steps whose outcome is looked at afterwards.

``Chem.MolFromSmiles`` parses, merges explicit hydrogens, sanitises and assigns stereo chemistry
with all *possible* centres flagged. Here the same steps run in the same order, without

* merging hydrogens: texts with a hydrogen in brackets of its own go the plain way;
* tidying bonds to metals where no metal is written;
* flagging possible centres: nothing reads the flags, and ranking all atoms for them is a fifth of
  the whole parse;
* for graphs of texts without a stereo mark: the sanitising steps after whose effect no feature
  looks (radicals, conjugation, hybridisation, chirality, hydrogen counts of aromatic atoms).
  Stereo assignment looks at all of it: ``c1(=N/R)nc(C)cc(C)[nH]1`` has two sides only by where
  the hydrogen is counted.

None stands for "read it the plain way": for texts that are not plain organic SMILES, and for
every failure, so that errors are always those of the plain way. `self_test` compares both at
first use, ``benchmarks/featurize.py --check-all`` on all staged molecules.
"""

from __future__ import annotations

from typing import Any, Final

from rdkit import Chem
from rdkit.Chem import SanitizeFlags

from moltc_vllm.chem.fast.smiles_scan import has_stereo, is_unusual, may_have_metal, scan_smiles

_FOR_GRAPH: Final = int(
    SanitizeFlags.SANITIZE_CLEANUP
    | SanitizeFlags.SANITIZE_PROPERTIES
    | SanitizeFlags.SANITIZE_SYMMRINGS
    | SanitizeFlags.SANITIZE_KEKULIZE
    | SanitizeFlags.SANITIZE_SETAROMATICITY
)
_FOR_METALS: Final = int(SanitizeFlags.SANITIZE_CLEANUP_ORGANOMETALLICS)
_FOR_WRITING: Final = int(SanitizeFlags.SANITIZE_ALL) & ~_FOR_METALS


def _as_written() -> Chem.SmilesParserParams:
    params: Any = Chem.SmilesParserParams()  # the stubs give its fields the wrong type
    params.sanitize = False
    params.removeHs = False
    return params


_AS_WRITTEN: Final = _as_written()


def read_for_graph(smiles: str) -> Chem.Mol | None:
    """Read what `featurize` needs; the molecule must not be written or searched."""
    shape = scan_smiles(smiles)
    stereo = has_stereo(shape)
    return _read(smiles, shape, _FOR_WRITING if stereo else _FOR_GRAPH, stereo)


def read_for_writing(smiles: str) -> Chem.Mol | None:
    """Read what `featurize` and ``MolToSmiles`` need."""
    return _read(smiles, scan_smiles(smiles), _FOR_WRITING, True)


def _read(smiles: str, shape: bytes, steps: int, assign_stereo: bool) -> Chem.Mol | None:
    if is_unusual(shape):
        return None
    mol = Chem.MolFromSmiles(smiles, _AS_WRITTEN)
    if mol is None:
        return None
    try:
        Chem.SanitizeMol(mol, steps | _FOR_METALS if may_have_metal(shape) else steps)
        if assign_stereo:
            Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    except (ValueError, RuntimeError):
        return None
    return mol
