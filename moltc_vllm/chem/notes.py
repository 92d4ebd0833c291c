"""Notes on molecules: charges, fragments, radicals and isotopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rdkit import Chem

from moltc_vllm.chem.metals import is_metal
from moltc_vllm.chem.queries import isotopes, query, radicals

_ACID: Final = "[$([F,Cl,Br,I;D0;H1]),$([OH]-[C,S,P,N+]=O)]"
_BASE: Final = "[#7;+0;!$([#7]*=[O,S]);!$([#7]#*);!$([#7]:*)]"
"""Atoms of acids and bases that form a salt, although they are drawn without charges."""

_FREE_CHARGE: Final = (
    "[$([+,+2,+3,+4,+5,+6]);!$(*~[-,-2,-3,-4]),$([-,-2,-3,-4]);!$(*~[+,+2,+3,+4,+5,+6])]"
)
"""A charge without an opposite one beside it, unlike in nitro groups and N-oxides."""


def composition_notes(mol: Chem.Mol) -> set[str]:
    """Return ``isotope`` and ``radical`` where they apply; ions of metals are not radicals."""
    notes = set()
    if mol.GetAtomsMatchingQuery(isotopes()):
        notes.add("isotope")
    if any(not is_metal(atom) for atom in mol.GetAtomsMatchingQuery(radicals())):
        notes.add("radical")
    return notes


def charge_notes(mol: Chem.Mol) -> set[str]:
    """Return ``charged`` for a net charge, or ``zwitterion`` if a neutral fragment has charges."""
    if Chem.GetFormalCharge(mol):
        return {"charged"}
    free_charges = {atom for (atom,) in mol.GetSubstructMatches(query(_FREE_CHARGE))}
    if not free_charges:
        return set()
    is_zwitterion = any(
        not _net_charge(mol, fragment) and not free_charges.isdisjoint(fragment)
        for fragment in Chem.GetMolFrags(mol)
    )
    return {"zwitterion"} if is_zwitterion else set()


def fragment_notes(mol: Chem.Mol, suffix: str = "") -> set[str]:
    """Return ``salt: 2 fragments`` or ``mixture: 2 fragments``; nothing for a single fragment.

    Args:
        mol: Molecule.
        suffix: Text to append to the note.
    """
    fragments = Chem.GetMolFrags(mol)
    if len(fragments) == 1:
        return set()
    is_salt = any(_net_charge(mol, atoms) for atoms in fragments) or any(
        acid != base
        for acid in _fragments_with(mol, fragments, _ACID)
        for base in _fragments_with(mol, fragments, _BASE)
    )
    return {f"{'salt' if is_salt else 'mixture'}: {len(fragments)} fragments{suffix}"}


def _net_charge(mol: Chem.Mol, atoms: Sequence[int]) -> int:
    return sum(mol.GetAtomWithIdx(atom).GetFormalCharge() for atom in atoms)


def _fragments_with(mol: Chem.Mol, fragments: Sequence[Sequence[int]], smarts: str) -> set[int]:
    """Return the indices of the fragments that have an atom of a pattern."""
    matched = {atom for (atom,) in mol.GetSubstructMatches(query(smarts))}
    return {index for index, atoms in enumerate(fragments) if not matched.isdisjoint(atoms)}
