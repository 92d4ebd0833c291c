"""`KekuleStructure`: bond orders and charges of one resonance form, and its alternating paths.

On an alternating path every other bond gains an order and the bonds in between lose one. Only the
atoms at the two ends then have another number of bonds, so a charge moves between them, or two
charges cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from rdkit import Chem
from rdkit.Chem import BondStereo, BondType

_MAX_SEARCH_STEPS: Final = 4_000
"""Number of bonds that one search tries; only large fused ring systems have more paths."""

_ORDERS: Final = {BondType.SINGLE: 1, BondType.DOUBLE: 2, BondType.TRIPLE: 3}
_BOND_TYPES: Final = {order: bond_type for bond_type, order in _ORDERS.items()}

B, C, N, O, P, S, AS, SE, TE = 5, 6, 7, 8, 15, 16, 33, 34, 52  # noqa: E741 (element symbols)

_NEIGHBORS_OF_DONOR: Final = {N: 3, P: 3, AS: 3, O: 2, S: 2, SE: 2, TE: 2}
"""Neighbors, hydrogens included, of a neutral atom whose lone pair can form another bond."""
_NEIGHBORS_OF_ANION: Final = {C: 3, N: 2, P: 2, O: 1, S: 1, SE: 1, TE: 1}
"""Neighbors of an anion with a lone pair; borohydrides and the like have none."""
_NEIGHBORS_OF_YLIDE_CATION: Final = {P: 4, AS: 4, S: 3, SE: 3}
"""Neighbors of a cation that becomes neutral by one more bond."""


class PathEnd(NamedTuple):
    """Atom at which an alternating path ends.

    Attributes:
        atom: Index of the atom.
        gained: Whether the last bond gains an order; otherwise it loses one.
    """

    atom: int
    gained: bool


class Aromaticity(NamedTuple):
    """Aromaticity of a resonance form.

    Attributes:
        atoms: Indices of the aromatic atoms.
        exocyclic_double_bonds: Number of double bonds between aromatic and other atoms.
    """

    atoms: frozenset[int]
    exocyclic_double_bonds: int


Path = tuple[int, ...]
"""Indices of the bonds of an alternating path."""


class KekuleStructure:
    """One resonance form without aromatic bonds.

    Args:
        mol: Sanitized molecule; it is not changed.

    Attributes:
        mol: The molecule with alternating double bonds.
        elements: Atomic number of each atom.
        charges: Formal charge of each atom.
        hydrogens: Number of implicit and explicit hydrogens of each atom.
        ranks: Rank of each atom, which is the same in every resonance form; equal ranks mean
            equivalent atoms.
    """

    def __init__(self, mol: Chem.Mol) -> None:
        self.mol = Chem.RWMol(mol)
        Chem.Kekulize(self.mol, clearAromaticFlags=True)
        atoms, bonds = _atoms(self.mol), _bonds(self.mol)
        # The E/Z marks of double bonds say the same, and RDKit would restore removed ones from it.
        for bond in bonds:
            bond.SetBondDir(Chem.BondDir.NONE)
        self.elements = [atom.GetAtomicNum() for atom in atoms]
        self.charges = [atom.GetFormalCharge() for atom in atoms]
        self.hydrogens = [atom.GetTotalNumHs() for atom in atoms]
        self._degrees = [atom.GetTotalDegree() for atom in atoms]
        self._radicals = [atom.GetNumRadicalElectrons() for atom in atoms]
        self._orders = [_ORDERS.get(bond.GetBondType(), 0) for bond in bonds]
        self.ranks = _rank_atoms(self.mol)
        self._neighbors: list[list[tuple[int, int]]] = [[] for _ in atoms]
        for bond in bonds:
            begin, end = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            self._neighbors[begin].append((end, bond.GetIdx()))
            self._neighbors[end].append((begin, bond.GetIdx()))
        for neighbors in self._neighbors:
            neighbors.sort(key=lambda neighbor: self.ranks[neighbor[0]])

    def search(
        self, start: int, accepts: Callable[[PathEnd], bool], *, gains_first: bool
    ) -> dict[PathEnd, Path]:
        """Find alternating paths from an atom, without charged atoms between their ends.

        Args:
            start: Atom at which the paths begin.
            accepts: Function that says whether a path may end at an atom.
            gains_first: Whether the first bond gains an order; otherwise it loses one.

        Returns:
            The first path found to each accepted end.
        """
        paths: dict[PathEnd, Path] = {}
        visited = {start}
        steps = 0

        def extend(atom: int, gains: bool, path: Path) -> None:
            nonlocal steps
            for neighbor, bond in self._neighbors[atom]:
                order = self._orders[bond]
                # Only single bonds gain an order, so no new triple or cumulated bond appears.
                if neighbor in visited or (order != 1 if gains else order < 2):
                    continue
                steps += 1
                if steps > _MAX_SEARCH_STEPS:
                    return
                end, longer = PathEnd(neighbor, gains), (*path, bond)
                if end not in paths and accepts(end):
                    paths[end] = longer
                if not self.charges[neighbor]:
                    visited.add(neighbor)
                    extend(neighbor, not gains, longer)
                    visited.remove(neighbor)

        extend(start, gains_first, ())
        return paths

    def change(
        self, path: Path, charges: Mapping[int, int], *, gains_first: bool
    ) -> KekuleStructure:
        """Return the structure with the bonds of a path and the charges of atoms changed.

        Args:
            path: Alternating path.
            charges: New formal charge of each atom to change.
            gains_first: Whether the first bond of the path gains an order.
        """
        changed = self._changed_mol(path, charges, gains_first)
        clear_bond_stereo(changed, path)
        Chem.SanitizeMol(changed)
        return KekuleStructure(changed)

    def aromaticity(
        self, path: Path, charges: Mapping[int, int], *, gains_first: bool
    ) -> Aromaticity:
        """Return the aromaticity of the structure that `change` returns."""
        changed = self._changed_mol(path, charges, gains_first)
        changed.UpdatePropertyCache(strict=False)
        Chem.SetAromaticity(changed)
        exocyclic = sum(
            bond.GetBondType() == BondType.DOUBLE
            and bond.GetBeginAtom().GetIsAromatic() != bond.GetEndAtom().GetIsAromatic()
            for bond in _bonds(changed)
        )
        return Aromaticity(
            frozenset(atom.GetIdx() for atom in changed.GetAromaticAtoms()), exocyclic
        )

    def _changed_mol(self, path: Path, charges: Mapping[int, int], gains_first: bool) -> Chem.RWMol:
        changed = Chem.RWMol(self.mol)
        for position, bond in enumerate(path):
            step = 1 if (position % 2 == 0) == gains_first else -1
            changed.GetBondWithIdx(bond).SetBondType(_BOND_TYPES[self._orders[bond] + step])
        for index, charge in charges.items():
            atom = changed.GetAtomWithIdx(index)
            atom.SetFormalCharge(charge)
            atom.SetNumExplicitHs(self.hydrogens[index])
            atom.SetNoImplicit(True)
        return changed

    def anions(self) -> list[int]:
        """List anions with a lone pair, except those beside a cation, as in nitro groups."""
        return [
            atom
            for atom in self._charged(-1)
            if self._degrees[atom] == _NEIGHBORS_OF_ANION.get(self.elements[atom])
            and not any(self.charges[neighbor] > 0 for neighbor, _ in self._neighbors[atom])
        ]

    def cations(self) -> list[int]:
        """List the atoms of `is_cation`."""
        return [atom for atom in self._charged(1) if self.is_cation(atom)]

    def carbocations(self) -> list[int]:
        """List the cations of carbon that have three neighbors."""
        return [atom for atom in self._charged(1) if self._is_carbocation(atom)]

    def is_donor(self, atom: int) -> bool:
        """Return whether an atom is neutral and its lone pair can form another bond."""
        return (
            self.charges[atom] == 0
            and self._degrees[atom] == _NEIGHBORS_OF_DONOR.get(self.elements[atom])
            and not self._radicals[atom]
            and not self._has_multiple_bond(atom)
        )

    def is_cation(self, atom: int) -> bool:
        """Return whether an atom is an onium with a multiple bond, as in iminium."""
        return (
            self.charges[atom] == 1
            and self.elements[atom] in _NEIGHBORS_OF_DONOR
            and self._has_multiple_bond(atom)
            # The anion of a nitro group or N-oxide belongs to the cation; boron has no lone pair,
            # so the two charges of a BODIPY dye do not.
            and not any(
                self.charges[neighbor] < 0 and self.elements[neighbor] != B
                for neighbor, _ in self._neighbors[atom]
            )
        )

    def accepts_bond(self, atom: int) -> bool:
        """Return whether an atom is a cation that becomes neutral by one more bond."""
        if self.charges[atom] != 1 or self._radicals[atom]:
            return False
        return self._is_carbocation(atom) or (
            self._degrees[atom] == _NEIGHBORS_OF_YLIDE_CATION.get(self.elements[atom])
            and not self._has_multiple_bond(atom)
        )

    def can_be_anion(self, atom: int) -> bool:
        """Return whether a neutral atom with a multiple bond becomes an anion by losing it."""
        return (
            self.charges[atom] == 0
            and self._degrees[atom] == _NEIGHBORS_OF_ANION.get(self.elements[atom])
            and not self._radicals[atom]
        )

    def is_oximate(self, atom: int) -> bool:
        """Return whether an atom is oxygen on nitrogen."""
        return self.elements[atom] == O and any(
            self.elements[neighbor] == N for neighbor, _ in self._neighbors[atom]
        )

    def is_oxygen_of_acyl(self, atom: int) -> bool:
        """Return whether an atom is oxygen or sulfur on an atom with another heteroatom."""
        return self.elements[atom] in (O, S) and any(
            other != atom and self.elements[other] in (N, O, S)
            for neighbor, _ in self._neighbors[atom]
            for other, _ in self._neighbors[neighbor]
        )

    def is_in_ring(self, atom: int) -> bool:
        """Return whether an atom is part of a ring."""
        return bool(self.mol.GetAtomWithIdx(atom).IsInRing())

    def is_beside_carbonyl(self, atom: int) -> bool:
        """Return whether a neighbor has a double bond to a terminal, neutral oxygen or sulfur."""
        return any(
            self._orders[bond] == 2
            and self.elements[other] in (O, S)
            and self._degrees[other] == 1
            and self.charges[other] == 0
            for neighbor, _ in self._neighbors[atom]
            for other, bond in self._neighbors[neighbor]
        )

    def _charged(self, charge: int) -> list[int]:
        atoms = [atom for atom, value in enumerate(self.charges) if value == charge]
        return sorted(atoms, key=lambda atom: self.ranks[atom])

    def _is_carbocation(self, atom: int) -> bool:
        return (
            self.charges[atom] == 1
            and self.elements[atom] == C
            and self._degrees[atom] == 3
            and not self._has_multiple_bond(atom)
        )

    def _has_multiple_bond(self, atom: int) -> bool:
        return any(self._orders[bond] > 1 for _, bond in self._neighbors[atom])


def clear_bond_stereo(mol: Chem.RWMol, bonds: Iterable[int]) -> bool:
    """Remove the E/Z marks of bonds in place; return whether there were any."""
    marked = [
        bond
        for bond in map(mol.GetBondWithIdx, bonds)
        if bond.GetStereo() not in (BondStereo.STEREONONE, BondStereo.STEREOANY)
    ]
    for bond in marked:
        bond.SetStereo(BondStereo.STEREONONE)
    return bool(marked)


def _rank_atoms(mol: Chem.Mol) -> list[int]:
    """Rank atoms by elements, hydrogens, stereocenters and bonds, alike in all resonance forms."""
    skeleton = Chem.RWMol(mol)
    for atom in _atoms(skeleton):
        atom.SetNumExplicitHs(atom.GetTotalNumHs())
        atom.SetNoImplicit(True)
        atom.SetFormalCharge(0)
        atom.SetNumRadicalElectrons(0)
    for bond in _bonds(skeleton):
        bond.SetBondType(BondType.SINGLE)
        bond.SetStereo(BondStereo.STEREONONE)
    skeleton.UpdatePropertyCache(strict=False)
    return list(Chem.CanonicalRankAtoms(skeleton, breakTies=False))


def _atoms(mol: Chem.Mol) -> list[Chem.Atom]:
    # RDKit's iterators of atoms and bonds take three Python calls for each of them.
    return [mol.GetAtomWithIdx(index) for index in range(mol.GetNumAtoms())]


def _bonds(mol: Chem.Mol) -> list[Chem.Bond]:
    return [mol.GetBondWithIdx(index) for index in range(mol.GetNumBonds())]
