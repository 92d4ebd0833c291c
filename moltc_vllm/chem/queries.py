"""Compiled queries, which RDKit matches much faster than a Python loop over atoms."""

from __future__ import annotations

from functools import cache
from typing import Any

from rdkit import Chem
from rdkit.Chem import rdqueries


@cache
def query(smarts: str) -> Chem.Mol:
    """Compile a SMARTS pattern once."""
    return Chem.MolFromSmarts(smarts)


def matches(mol: Chem.Mol, smarts: str) -> bool:
    """Return whether a molecule has a pattern."""
    return bool(mol.HasSubstructMatch(query(smarts)))


def parse_standardized(smiles: str) -> Chem.Mol:
    """Parse the SMILES of a molecule that RDKit has changed.

    Raises:
        ValueError: If RDKit cannot read its own SMILES.
    """
    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise ValueError(f"RDKit cannot read the result {smiles}")
    return mol


@cache
def isotopes() -> Any:
    """Return a query for atoms with a specified isotope."""
    return rdqueries.IsotopeGreaterQueryAtom(0)


@cache
def radicals() -> Any:
    """Return a query for atoms with unpaired electrons."""
    return rdqueries.NumRadicalElectronsGreaterQueryAtom(0)


@cache
def mapped_atoms() -> Any:
    """Return a query for atoms with an atom map number."""
    return rdqueries.HasPropQueryAtom("molAtomMapNumber")
