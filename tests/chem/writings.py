"""Other SMILES of a molecule, written as different tools and users write it."""

from __future__ import annotations

import random
from collections.abc import Iterator

from rdkit import Chem
from rdkit.Chem import rdChemReactions

_RANDOM_SPELLINGS = 2

_CHARGE_SEPARATIONS = (
    "[S;X3,X4;+0:1]=[O;+0:2]>>[S+:1]-[O-:2]",  # sulfoxides, sulfones, sulfonamides
    "[P;X4;+0:1]=[O;+0:2]>>[P+:1]-[O-:2]",
    "[N+0:1]=[N+:2]=[N-:3]>>[N-:1]-[N+:2]#[N+0:3]",
)
_UNCHARGED_GROUPS = (
    "[N+:1](=[O:2])[O-:3]>>[N+0:1](=[O:2])=[O+0:3]",  # five-valent nitrogen
    "[n+:1][O-:2]>>[n+0:1]=[O+0:2]",
    "[N+0:1]=[N+:2]=[N-:3]>>[N+0:1]=[N+0:2]#[N+0:3]",
)


def writings(smiles: str, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield SMILES of the same molecule, each with the name of the way it is written.

    The last two, ``isotopes`` and charge-separated groups, are the same molecule after cleanup
    only.
    """
    mol = Chem.MolFromSmiles(smiles)
    generator = random.Random(seed)
    for index in range(_RANDOM_SPELLINGS):
        order = list(range(mol.GetNumAtoms()))
        generator.shuffle(order)
        shuffled = Chem.RenumberAtoms(mol, order)
        yield f"random {index}", Chem.MolToSmiles(shuffled, canonical=False)
    kekulized = Chem.Mol(mol)
    Chem.Kekulize(kekulized, clearAromaticFlags=True)
    yield "kekulized", Chem.MolToSmiles(kekulized, kekuleSmiles=True)
    yield "explicit hydrogens", Chem.MolToSmiles(Chem.AddHs(mol))
    yield "brackets", Chem.MolToSmiles(mol, allHsExplicit=True, allBondsExplicit=True)
    mapped = Chem.Mol(mol)
    for atom in mapped.GetAtoms():
        atom.SetAtomMapNum(atom.GetIdx() + 1)
    yield "atom maps", Chem.MolToSmiles(mapped)
    if uncharged := _rewrite(smiles, _UNCHARGED_GROUPS):
        yield "five-valent nitrogen", uncharged


def cleanup_writings(smiles: str) -> Iterator[tuple[str, str]]:
    """Yield SMILES that become the same molecule by ``cleanup``."""
    mol = Chem.MolFromSmiles(smiles)
    deuterated = Chem.AddHs(mol)
    for atom in deuterated.GetAtoms():
        if atom.GetAtomicNum() == 1:
            atom.SetIsotope(2)
    if deuterated.GetNumAtoms() > mol.GetNumAtoms():
        yield "deuterated", Chem.MolToSmiles(deuterated)
    labelled = Chem.Mol(mol)
    for atom in labelled.GetAtoms():
        if atom.GetAtomicNum() == 6:
            atom.SetIsotope(13)
            yield "carbon-13", Chem.MolToSmiles(labelled)
            break
    if separated := _rewrite(smiles, _CHARGE_SEPARATIONS):
        yield "separated charges", separated


def salts(smiles: str) -> Iterator[tuple[str, str]]:
    """Yield salts and solvates of a neutral molecule, which is their parent."""
    mol = Chem.MolFromSmiles(smiles)
    yield "hydrate", f"{smiles}.O"
    amine = mol.GetSubstructMatch(Chem.MolFromSmarts("[N;X3;+0;!$(N~*=,#,:*);!$(N-[!#6])]"))
    if amine:
        yield "ammonium chloride", f"{_charged(mol, amine[0], 1)}.[Cl-]"
        yield "hydrochloride", f"{smiles}.Cl"
    acid = mol.GetSubstructMatch(Chem.MolFromSmarts("[OX2;H1;$(O-C=O)]"))
    if acid:
        yield "sodium salt", f"{_charged(mol, acid[0], -1)}.[Na+]"
        yield "potassium salt", f"[K+].{_charged(mol, acid[0], -1)}"


def _charged(mol: Chem.Mol, index: int, charge: int) -> str:
    """Return the SMILES of a molecule with a proton added to or removed from an atom."""
    changed = Chem.RWMol(mol)
    atom = changed.GetAtomWithIdx(index)
    atom.SetNumExplicitHs(atom.GetTotalNumHs() + charge)
    atom.SetFormalCharge(charge)
    atom.SetNoImplicit(True)
    Chem.SanitizeMol(changed)
    return Chem.MolToSmiles(changed)


def _rewrite(smiles: str, reactions: tuple[str, ...]) -> str | None:
    """Apply each reaction as often as possible; None if nothing can be rewritten."""
    mol = Chem.MolFromSmiles(smiles)
    written = None
    for smarts in reactions:
        reaction = rdChemReactions.ReactionFromSmarts(smarts)
        while products := reaction.RunReactants((mol,)):
            (mol, *_), *_ = products
            mol.UpdatePropertyCache(strict=False)
            written = Chem.MolToSmiles(mol)
    return written
