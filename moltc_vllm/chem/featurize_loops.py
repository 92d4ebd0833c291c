"""Featurize RDKit molecules in Python loops: the reference implementation.

Call `featurize.featurize` instead: it uses the compiled reader where that supports the molecule,
and these loops otherwise. They also produce the error that names the unsupported atom or bond.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from rdkit import Chem
from rdkit.Chem import BondDir, BondType, ChiralType

from moltc_vllm.chem.atom_detail import (
    can_conjugate,
    classify_hybridization,
    count_lone_pairs,
    detail_code,
)
from moltc_vllm.chem.errors import MoleculeError
from moltc_vllm.chem.graph import ATOM_TYPES, MolGraph

_CHIRALITY: Final = {
    ChiralType.CHI_UNSPECIFIED: 0,
    ChiralType.CHI_TETRAHEDRAL_CW: 1,
    ChiralType.CHI_TETRAHEDRAL_CCW: 2,
}
_BOND_TYPE: Final = {
    BondType.SINGLE: 0,
    BondType.DOUBLE: 1,
    BondType.TRIPLE: 2,
    BondType.AROMATIC: 3,
}
_BOND_DIRECTION: Final = {BondDir.NONE: 0, BondDir.ENDUPRIGHT: 1, BondDir.ENDDOWNRIGHT: 2}


def featurize_loops(mol: Chem.Mol, text: str | None = None) -> MolGraph:
    """Look up every atom and bond in the encoder's feature tables.

    Arguments, result and errors are those of `featurize.featurize`.
    """
    # -1 marks a value that is in no table; a dummy atom (atomic number 0) becomes -1 by itself.
    atoms = [
        (atom.GetAtomicNum() - 1, _CHIRALITY.get(atom.GetChiralTag(), -1))
        for atom in mol.GetAtoms()
    ]
    bonds = [
        (
            bond.GetBeginAtomIdx(),
            bond.GetEndAtomIdx(),
            _BOND_TYPE.get(bond.GetBondType(), -1),
            _BOND_DIRECTION.get(bond.GetBondDir(), -1),
        )
        for bond in mol.GetBonds()
    ]
    atom_table = np.array(atoms, dtype=np.int64).reshape(-1, 2)
    bond_table = np.array(bonds, dtype=np.int64).reshape(-1, 4)
    if not atoms or min(atom_table.min(), bond_table.min(initial=0)) < 0:
        raise _feature_error(mol, text)
    return MolGraph(
        atomic_number=atom_table[:, 0].astype(np.uint8),
        chirality=atom_table[:, 1].astype(np.uint8),
        bond_index=bond_table[:, :2].T.astype(np.uint16),
        bond_type=bond_table[:, 2].astype(np.uint8),
        bond_direction=bond_table[:, 3].astype(np.uint8),
        detail=np.array([_detail(atom) for atom in mol.GetAtoms()], np.uint16),
    )


def _detail(atom: Chem.Atom) -> int:
    rings = atom.GetOwningMol().GetRingInfo()
    return detail_code(
        charge=atom.GetFormalCharge(),
        hydrogens=atom.GetTotalNumHs(includeNeighbors=True),
        ring_size=rings.MinAtomRingSize(atom.GetIdx()),
        hybridization=_hybridization(atom),
        radicals=atom.GetNumRadicalElectrons(),
    )


def _hybridization(atom: Chem.Atom) -> int:
    element, radicals = atom.GetAtomicNum(), atom.GetNumRadicalElectrons()
    valence = sum(bond.GetBondTypeAsDouble() for bond in atom.GetBonds()) + atom.GetTotalNumHs()
    return classify_hybridization(
        is_aromatic=atom.GetIsAromatic(),
        neighbors=atom.GetTotalDegree(),
        lone_pairs=count_lone_pairs(element, atom.GetFormalCharge(), radicals, int(valence)),
        radicals=radicals,
        is_conjugated=can_conjugate(element)
        and any(_offers_pi_bond(neighbor) for neighbor in atom.GetNeighbors()),
    )


def _offers_pi_bond(atom: Chem.Atom) -> bool:
    """Tell whether a neighbor's lone pair can conjugate with a multiple bond of this atom."""
    return can_conjugate(atom.GetAtomicNum()) and any(
        bond.GetBondType() != BondType.SINGLE for bond in atom.GetBonds()
    )


def _feature_error(mol: Chem.Mol, text: str | None) -> MoleculeError:
    name = Chem.MolToSmiles(mol) if text is None else text
    if mol.GetNumAtoms() == 0:
        return MoleculeError(name, "empty", "no atoms")
    return MoleculeError(name, "unsupported", _describe_unsupported(mol))


def _describe_unsupported(mol: Chem.Mol) -> str:
    for atom in mol.GetAtoms():
        atom_name = f"atom {atom.GetIdx()} ({atom.GetSymbol()})"
        if not 1 <= atom.GetAtomicNum() <= ATOM_TYPES:
            return f"{atom_name} is not an element"
        if atom.GetChiralTag() not in _CHIRALITY:
            return f"{atom_name} has chirality {atom.GetChiralTag()}, not tetrahedral"
    for bond in mol.GetBonds():
        bond_name = f"bond {bond.GetBeginAtomIdx()}-{bond.GetEndAtomIdx()}"
        if bond.GetBondType() not in _BOND_TYPE:
            return f"{bond_name} is {bond.GetBondType()}, not single, double, triple or aromatic"
        if bond.GetBondDir() not in _BOND_DIRECTION:
            return f"{bond_name} has direction {bond.GetBondDir()}"
    raise AssertionError("all atoms and bonds are supported")
