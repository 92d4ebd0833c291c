"""Choose one resonance form of a molecule whose charges can be drawn at several atoms.

1. Opposite charges that an alternating path connects cancel, and a carbocation takes the lone pair
   of an amine that it is conjugated with: merocyanines, pyridinium phenolates and dyes drawn as
   carbocations become neutral or iminium, whatever the length of the path.
2. Every charge that remains is drawn at the atom that is preferred among those a path reaches:
   cyanines, BODIPY dyes, imidazolium, amidinium, enolates.

RDKit's own normalization cancels charges that are two or four bonds apart, and moves none.
Hydrogens stay where they are, so tautomers and protonation states remain different molecules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from rdkit import Chem

from moltc_vllm.chem import kekule
from moltc_vllm.chem.kekule import (
    Aromaticity,
    KekuleStructure,
    Path,
    PathEnd,
    clear_bond_stereo,
)
from moltc_vllm.chem.queries import matches, parse_standardized

_CATION_ELEMENTS: Final = (kekule.N, kekule.P, kekule.S, kekule.O, kekule.SE, kekule.TE, kekule.AS)
_ANION_ELEMENTS: Final = (kekule.N, kekule.O, kekule.S, kekule.SE, kekule.TE, kekule.P, kekule.C)

MOVABLE_CHARGE: Final = (
    "[+,-;!$([N+;X4]);!$([N+](=O)[O-]);!$([O-][N+]);!$([O-]-C(=O)[#6,#1]);!$([O-]-S(=O)=O);!D0]"
)
"""A charge that another form may draw elsewhere; ammonium, nitro and carboxylate have none."""


def canonical_resonance(mol: Chem.Mol) -> Chem.Mol:
    """Return the preferred resonance form of a molecule.

    Double bonds between atoms that share a charge lose their E/Z marks, because forms of equal
    weight draw them as single bonds, which cannot have one.

    Args:
        mol: Sanitized molecule; it is not changed.

    Returns:
        The preferred form; ``mol`` itself if it is preferred already.
    """
    if not matches(mol, MOVABLE_CHARGE):
        return mol
    given = KekuleStructure(mol)
    structure = _cancel_charges(given)
    has_cleared_stereo = False
    for kind in (_CATION, _ANION):
        structure, has_cleared = _place_charges(structure, kind)
        has_cleared_stereo |= has_cleared
    if structure is given and not has_cleared_stereo:
        return mol
    result = Chem.Mol(structure.mol)
    Chem.SanitizeMol(result)
    # Parsing sets the bond directions, which `KekuleStructure` has removed, by the E/Z marks.
    return parse_standardized(Chem.MolToSmiles(result))


def _cancel_charges(structure: KekuleStructure) -> KekuleStructure:
    while (changed := next(_with_fewer_charges(structure), None)) is not None:
        structure = changed
    return structure


def _with_fewer_charges(structure: KekuleStructure) -> Iterator[KekuleStructure]:
    """Yield the structure with one charge less, or with a carbocation turned into iminium."""

    def cancels(end: PathEnd) -> bool:
        return structure.accepts_bond(end.atom) if end.gained else structure.is_cation(end.atom)

    def distance(end: PathEnd) -> tuple[int, int]:
        return len(paths[end]), structure.ranks[end.atom]

    for anion in structure.anions():
        if structure.is_oximate(anion):  # would become a nitroso compound
            continue
        paths = structure.search(anion, cancels, gains_first=True)
        for end in sorted(paths, key=distance):
            yield structure.change(paths[end], {anion: 0, end.atom: 0}, gains_first=True)
    for carbon in structure.carbocations():
        paths = structure.search(
            carbon, lambda end: end.gained and structure.is_donor(end.atom), gains_first=True
        )
        for end in sorted(paths, key=distance):
            yield structure.change(paths[end], {carbon: 0, end.atom: 1}, gains_first=True)


class _Form(NamedTuple):
    """A way to draw one charge.

    Attributes:
        structure: A form of the molecule.
        atom: Atom at which this form has the charge.
        aromaticity: Aromaticity of this form.
    """

    structure: KekuleStructure
    atom: int
    aromaticity: Aromaticity


class _Preference(NamedTuple):
    """Sort key of a form; the smallest is drawn.

    Attributes:
        chemistry: Criteria by which the forms contribute unequally to the real molecule.
        convention: Criteria that choose one of several equal forms.
    """

    chemistry: tuple[int, ...]
    convention: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _ChargeKind:
    """Rules for charges of one sign.

    Attributes:
        charge: The charge.
        find: Function that lists the charged atoms of a structure.
        accepts: Function that says whether a path may move the charge to its end.
        gains_first: Whether the first bond of a path gains an order.
        preference: Function that returns the sort key of a form.
    """

    charge: int
    find: Callable[[KekuleStructure], list[int]]
    accepts: Callable[[KekuleStructure, PathEnd], bool]
    gains_first: bool
    preference: Callable[[_Form], _Preference]


def _prefer_cation(form: _Form) -> _Preference:
    """Prefer atoms away from carbonyl groups, then aromatic rings, then nitrogen."""
    structure, atom = form.structure, form.atom
    return _Preference(
        chemistry=(
            structure.is_beside_carbonyl(atom),
            -len(form.aromaticity.atoms),
            _CATION_ELEMENTS.index(structure.elements[atom]),
        ),
        convention=(
            form.aromaticity.exocyclic_double_bonds,
            not structure.is_in_ring(atom),
            -structure.hydrogens[atom],
            structure.ranks[atom],
        ),
    )


def _prefer_anion(form: _Form) -> _Preference:
    """Prefer enolates to amides, esters and carbanions, then aromatic rings, then nitrogen."""
    structure, atom = form.structure, form.atom
    return _Preference(
        chemistry=(
            structure.elements[atom] == kekule.C,
            structure.is_oxygen_of_acyl(atom),
            -len(form.aromaticity.atoms),
            _ANION_ELEMENTS.index(structure.elements[atom]),
        ),
        convention=(
            form.aromaticity.exocyclic_double_bonds,
            structure.is_in_ring(atom),
            structure.ranks[atom],
        ),
    )


_CATION: Final = _ChargeKind(
    charge=1,
    find=KekuleStructure.cations,
    accepts=lambda structure, end: end.gained and structure.is_donor(end.atom),
    gains_first=False,
    preference=_prefer_cation,
)
_ANION: Final = _ChargeKind(
    charge=-1,
    find=KekuleStructure.anions,
    accepts=lambda structure, end: not end.gained and structure.can_be_anion(end.atom),
    gains_first=True,
    preference=_prefer_anion,
)


def _place_charges(structure: KekuleStructure, kind: _ChargeKind) -> tuple[KekuleStructure, bool]:
    """Draw each charge of a kind at its preferred atom.

    Returns:
        The structure, and whether E/Z marks were removed.
    """
    has_cleared_stereo = False
    for position in range(len(kind.find(structure))):
        charged = kind.find(structure)
        if position < len(charged):
            placement = _Placement(structure, charged[position], kind)
            chosen = placement.preferred_atom()
            if chosen != placement.atom:
                structure = placement.move_to(chosen)
                placement = _Placement(structure, chosen, kind)
            has_cleared_stereo |= placement.clear_stereo()
    return structure, has_cleared_stereo


class _Placement:
    """Atoms of a structure that can have one of its charges.

    Args:
        structure: Structure with the charge.
        atom: Atom that has the charge.
        kind: Rules for the charge.
    """

    def __init__(self, structure: KekuleStructure, atom: int, kind: _ChargeKind) -> None:
        self.structure, self.atom, self.kind = structure, atom, kind
        ends = structure.search(
            atom, lambda end: kind.accepts(structure, end), gains_first=kind.gains_first
        )
        self._paths: dict[int, Path] = {atom: (), **{end.atom: path for end, path in ends.items()}}
        # One of several equivalent atoms stands for all of them: `atom`, if it is among them.
        ranks = structure.ranks
        distinct = {ranks[other]: other for other in reversed(self._paths)}
        self._preferences: dict[int, _Preference] = {}
        if len(distinct) > 1:
            self._preferences = {rank: self._rate(other) for rank, other in distinct.items()}
        self._atoms_by_rank = distinct

    def preferred_atom(self) -> int:
        if not self._preferences:
            return self.atom
        return self._atoms_by_rank[min(self._preferences, key=self._preferences.__getitem__)]

    def move_to(self, atom: int) -> KekuleStructure:
        return self.structure.change(
            self._paths[atom], self._charges(atom), gains_first=self.kind.gains_first
        )

    def clear_stereo(self) -> bool:
        """Remove E/Z marks between atoms that have the charge in forms of equal weight.

        Returns:
            Whether there were any marks.
        """
        best = min(self._preferences.values(), default=None)
        bonds = {
            bond
            for other, path in self._paths.items()
            if best is None
            or self._preferences[self.structure.ranks[other]].chemistry == best.chemistry
            for bond in path
        }
        return clear_bond_stereo(self.structure.mol, bonds)

    def _rate(self, atom: int) -> _Preference:
        aromaticity = self.structure.aromaticity(
            self._paths[atom], self._charges(atom), gains_first=self.kind.gains_first
        )
        return self.kind.preference(_Form(self.structure, atom, aromaticity))

    def _charges(self, atom: int) -> dict[int, int]:
        return {self.atom: 0, atom: self.kind.charge}
