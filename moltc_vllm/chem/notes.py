"""Notes on molecules: charges, fragments, radicals and isotopes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from rdkit import Chem

from moltc_vllm.chem.metals import is_metal

_ACID: Final = "[$([F,Cl,Br,I;D0;H1]),$([OH]-[C,S,P,N+]=O)]"
_BASE: Final = "[#7;+0;!$([#7]*=[O,S]);!$([#7]#*);!$([#7]:*)]"
"""Atoms of acids and bases that form a salt, although they are drawn without charges."""


def composition_notes(mol: Chem.Mol) -> set[str]:
    """Return ``isotope`` and ``radical`` where they apply; ions of metals are not radicals."""
    notes = set()
    for atom in mol.GetAtoms():
        if atom.GetIsotope():
            notes.add("isotope")
        if atom.GetNumRadicalElectrons() and not is_metal(atom):
            notes.add("radical")
    return notes


def charge_notes(mol: Chem.Mol) -> set[str]:
    """Return ``charged`` for a net charge, or ``zwitterion`` if a neutral fragment has charges."""
    if Chem.GetFormalCharge(mol):
        return {"charged"}
    for atoms in _fragments(mol):
        if not _net_charge(atoms) and any(_is_free_charge(atom) for atom in atoms):
            return {"zwitterion"}
    return set()


def fragment_notes(mol: Chem.Mol, suffix: str = "") -> set[str]:
    """Return ``salt: 2 fragments`` or ``mixture: 2 fragments``; nothing for a single fragment.

    Args:
        mol: Molecule.
        suffix: Text to append to the note.
    """
    fragments = _fragments(mol)
    if len(fragments) == 1:
        return set()
    is_salt = any(_net_charge(atoms) for atoms in fragments) or _has_acid_and_base(mol, fragments)
    return {f"{'salt' if is_salt else 'mixture'}: {len(fragments)} fragments{suffix}"}


def _fragments(mol: Chem.Mol) -> list[list[Chem.Atom]]:
    return [[mol.GetAtomWithIdx(index) for index in fragment] for fragment in Chem.GetMolFrags(mol)]


def _net_charge(atoms: Sequence[Chem.Atom]) -> int:
    return sum(atom.GetFormalCharge() for atom in atoms)


def _is_free_charge(atom: Chem.Atom) -> bool:
    """Return whether no neighbor has the opposite charge, unlike in nitro groups and N-oxides."""
    charge = atom.GetFormalCharge()
    return charge != 0 and all(
        neighbor.GetFormalCharge() * charge >= 0 for neighbor in atom.GetNeighbors()
    )


def _has_acid_and_base(mol: Chem.Mol, fragments: Sequence[Sequence[Chem.Atom]]) -> bool:
    """Return whether one fragment is an acid and another one an amine, as in ``CCN.Cl``."""
    acids, bases = (_fragments_with(mol, fragments, query) for query in (_ACID, _BASE))
    return any(acid != base for acid in acids for base in bases)


def _fragments_with(
    mol: Chem.Mol, fragments: Sequence[Sequence[Chem.Atom]], smarts: str
) -> set[int]:
    matched = {atom for match in mol.GetSubstructMatches(_query(smarts)) for atom in match}
    return {
        index
        for index, atoms in enumerate(fragments)
        if any(atom.GetIdx() in matched for atom in atoms)
    }


@cache
def _query(smarts: str) -> Chem.Mol:
    return Chem.MolFromSmarts(smarts)
