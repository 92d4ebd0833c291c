"""Cut the bonds between metals and the ions or ligands around them."""

from __future__ import annotations

from typing import Final

from rdkit import Chem
from rdkit.Chem import BondType
from rdkit.Chem.MolStandardize import rdMolStandardize

from moltc_vllm.chem.queries import matches, query

_IONIC_BOND: Final = "[Li,Na,K,Rb,Cs,Mg,Ca,Sr,Ba]-[S,Se,Cl,Br,I]"
"""A bond between ions that RDKit's rules do not have."""

_OXO_METAL: Final = "[!#6;!#7;!P;!S;!Cl;!As;!Se;!Br;!Te;!I;!Si;!B]=O"
"""A metal with an oxide, as in permanganate, which is a molecule and not a set of ions."""

_AMINE_ON_METAL: Final = "[N;+0;!H0;!$(N=*);!$(N*=[O,S,N])]-[Fe,Co,Ni,Ru,Rh,Pd,Os,Ir,Pt]"
"""An amine drawn with a single bond to a metal, where its lone pair makes a dative bond."""

_NONMETALS: Final = frozenset(
    {0, 1, 2, *range(5, 11), *range(14, 19), *range(32, 37), *range(51, 55), 85, 86}
)
"""Atomic numbers of nonmetals, metalloids that bind like them, and the dummy atom."""

BOUND_METAL: Final = f"[{';'.join(f'!#{number}' for number in sorted(_NONMETALS))}]~*"
"""A metal with a bond."""


def is_metal(atom: Chem.Atom) -> bool:
    """Return whether an atom is a metal."""
    return atom.GetAtomicNum() not in _NONMETALS


def disconnect_metals(mol: Chem.Mol) -> Chem.Mol:
    """Cut bonds of metals as in RDKit's `MetalDisconnector`, but keep the net charge.

    The nonmetal keeps the electrons of a cut bond. Amines become neutral, however their bond was
    drawn. Carbon stays on magnesium, tin, mercury and other metals of the main groups, and
    oxoanions such as permanganate stay whole.

    Args:
        mol: Sanitized molecule; it is not changed.

    Returns:
        The molecule itself if nothing is cut.
    """
    if not matches(mol, BOUND_METAL):
        return mol
    bonds = _bonds_to_cut(mol)
    if not bonds:
        return mol
    amines = {amine for amine, _ in mol.GetSubstructMatches(query(_AMINE_ON_METAL))}
    changed = Chem.RWMol(mol)
    for metal_index, other_index in sorted(bonds):
        bond = changed.GetBondBetweenAtoms(metal_index, other_index)
        metal, other = changed.GetAtomWithIdx(metal_index), changed.GetAtomWithIdx(other_index)
        electrons = 0 if bond.GetBondType() == BondType.DATIVE else int(bond.GetBondTypeAsDouble())
        hydrogens = other.GetTotalNumHs()
        if other_index in amines:
            hydrogens += electrons
        else:
            other.SetFormalCharge(other.GetFormalCharge() - electrons)
            metal.SetFormalCharge(metal.GetFormalCharge() + electrons)
        other.SetNumExplicitHs(hydrogens)
        for atom in (metal, other):
            atom.SetNoImplicit(True)
        changed.RemoveBond(metal_index, other_index)
    Chem.SanitizeMol(changed)
    return changed.GetMol()


def _bonds_to_cut(mol: Chem.Mol) -> set[tuple[int, int]]:
    """Return the metal and the other atom of each bond to cut."""
    metals = rdMolStandardize.MetalDisconnector()
    oxo_metals = {metal for metal, _ in mol.GetSubstructMatches(query(_OXO_METAL))}
    return {
        (metal, other)
        for smarts in (metals.MetalNof, metals.MetalNon, _IONIC_BOND)
        for metal, other in mol.GetSubstructMatches(query(smarts))
        if metal not in oxo_metals
    }
