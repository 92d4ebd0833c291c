"""Standardize molecules: one SMILES for each molecule, however it was drawn.

Modes (`Standardization`):

* ``as-drawn``: RDKit's sanitization only;
* ``cleanup``: isotopes become the element, hydrogens implicit, bonds to metals are cut, and groups
  and dyes that are drawn with separated charges get one resonance form. Fragments, protonation
  states, tautomers and radicals stay as drawn;
* ``parent``: ``cleanup``, then the largest fragment, neutralized where protons can do it.

Few SMILES need any of it, so a scan of the text (`needs_no_cleanup`) rules the slow steps out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

from rdkit import Chem
from rdkit.Chem.MolStandardize import rdMolStandardize

from moltc_vllm.chem.errors import MoleculeError
from moltc_vllm.chem.limits import DEFAULT_LIMITS, MoleculeLimits
from moltc_vllm.chem.metals import BOUND_METAL, disconnect_metals
from moltc_vllm.chem.notes import charge_notes, composition_notes, fragment_notes
from moltc_vllm.chem.parse import clean_smiles, parse_smiles
from moltc_vllm.chem.queries import isotopes, mapped_atoms, matches, parse_standardized
from moltc_vllm.chem.rdkit_log import QuietLog, first_reason
from moltc_vllm.chem.resonance import MOVABLE_CHARGE, canonical_resonance
from moltc_vllm.utils.standardization import Standardization

_CACHE_SIZE: Final = 65_536
_MAX_ROUNDS: Final = 8

_NORMALIZATIONS: Final = {
    "Sulfone to S(=O)(=O)": "[S,Se,Te;+2:1]([O-:2])[O-:3]>>[*+0:1](=[O-0:2])=[O-0:3]",
    "Oxide, imide or ylide of S or P to double bond": (
        "[P,S,As,Se,Te;+1:1]-[C,N,O,S;-1:2]>>[*+0:1]=[*-0:2]"
    ),
    "Azide to N=[N+]=[N-]": "[N-:1]-[N+:2]#[N+0:3]>>[N-0:1]=[N+:2]=[N-:3]",
    "Diazo to C=[N+]=[N-]": "[C-:1]-[N+:2]#[N+0:3]>>[C-0:1]=[N+:2]=[N-:3]",
    "Nitronate to C=[N+]([O-])[O-]": (
        "[C-;X3:1]-[N+;X3:2](=[O:3])[O-:4]>>[C-0:1]=[N+:2]([O-:3])[O-:4]"
    ),
    "Nitrile oxide to C#[N+][O-]": "[C+;X2:1]=[N+0:2][O-:3]>>[C+0:1]#[N+:2][O-:3]",
    "Nitrilium to C#[N+]": "[C+;X2:1]=[N+0;X2:2]>>[C+0:1]#[N+:2]",
    "Nitrile to C#N": "[C+;X2:1]=[N-:2]>>[C+0:1]#[N-0:2]",
}
"""Reactions that draw a group in its usual form.

Sulfur and phosphorus have double bonds, as in most databases and in the training data; RDKit's own
list draws sulfoxides with charges. RDKit's sanitization has already put nitro groups, N-oxides,
azides and perchlorates into their forms with charges.
"""

_UNUSUAL_GROUP: Final = "[$([P,S,As,Se,Te;+,+2]-[C,N,O,S;-]),$([N-,C-]-[N+]),$([C+;X2]=[N;+0,-])]"
"""First atom of every group that `_NORMALIZATIONS` changes, and of some others."""

_WEAK_ANION: Final = "[-;!D0;!$([O-]C=O);!$([O-]S(=O)=O);!$(*~[+,+2,+3])]"
_STRONG_ACID: Final = "[O;H1]-[S,P,As,Se]"
"""Anions of weak acids, and acids stronger than carboxylic acids."""

_UNCLEAN: Final = f"[#1,$({BOUND_METAL}),$({_UNUSUAL_GROUP}),$({MOVABLE_CHARGE})]"
"""An atom that some step of ``cleanup`` may change."""

_BRACKETS: Final = re.compile(r"\[[^\]]*\]")
_NEUTRAL_BRACKETS: Final = frozenset(
    {
        *("[C@]", "[C@@]", "[C@H]", "[C@@H]", "[nH]", "[N@]", "[N@@]", "[S@]", "[S@@]"),
        *("[P@]", "[P@@]", "[se]"),
    }
)
"""Bracket atoms without charge, isotope, explicit hydrogen atom, metal or unpaired electron."""


class Standardized(NamedTuple):
    """A standardized molecule.

    Attributes:
        smiles: SMILES of the molecule; the text itself if it was not changed.
        notes: Properties of the molecule that a reader of its answer should know, see
            `molecule_notes`.
    """

    smiles: str
    notes: tuple[str, ...] = ()


def standardize(
    text: str, mode: Standardization, limits: MoleculeLimits = DEFAULT_LIMITS
) -> Standardized:
    """Standardize one molecule.

    Results are cached; errors are not.

    Args:
        text: SMILES of the molecule.
        mode: How to standardize it.
        limits: Bounds on the molecule's size as given.

    Raises:
        MoleculeError: If the molecule cannot be read or standardized.
    """
    smiles = clean_smiles(text, limits)
    if needs_no_cleanup(smiles):
        return Standardized(smiles)
    return _standardize(smiles, mode, limits)


def molecule_notes(
    text: str, mode: Standardization = "as-drawn", limits: MoleculeLimits = DEFAULT_LIMITS
) -> tuple[str, ...]:
    """Describe what is unusual about a molecule, and what its standardization changed.

    * ``charged``: the molecule that is encoded has a net charge;
    * ``zwitterion``: one of its fragments has opposite charges, but no net charge;
    * ``salt: 2 fragments``, of ions or of an acid and an amine, or else ``mixture: 2 fragments``;
      with the mode ``parent``, ``, largest kept`` follows;
    * ``radical``, ``isotope``: it was drawn with unpaired electrons or with isotopes;
    * ``resonance form changed``, ``metal bonds removed``, ``protons moved``, ``neutralized``: it
      was redrawn.

    Args:
        text: SMILES of the molecule.
        mode: How the molecule is standardized.
        limits: Bounds on the molecule's size as given.

    Raises:
        MoleculeError: If the molecule cannot be read or standardized.
    """
    return standardize(text, mode, limits).notes


def pair_notes(
    molecules: Sequence[str],
    roles: Sequence[str],
    mode: Standardization,
    limits: MoleculeLimits = DEFAULT_LIMITS,
) -> tuple[str, ...]:
    """Return the notes on all molecules of one question, each after the role of its molecule.

    Args:
        molecules: SMILES of the molecules, which have been read without an error.
        roles: Name of each molecule's role.
        mode: How the molecules are standardized.
        limits: Bounds on the size of a molecule.
    """
    notes: list[str] = []
    for index, smiles in enumerate(molecules):
        if found := molecule_notes(smiles, mode, limits):
            role = roles[index] if index < len(roles) else f"molecule {index + 1}"
            notes += [f"{role}: {note}" for note in found]
    return tuple(notes)


def needs_no_cleanup(smiles: str) -> bool:
    """Tell from its text that no mode changes a molecule and that there is nothing to note.

    The text is one fragment without charges except those of nitro groups, isotopes, explicit
    hydrogens, atom maps, metals, radicals and dative bonds.
    """
    if ">" in smiles or "<" in smiles or "." in smiles:
        return False
    if "[" not in smiles:
        return True
    rest = smiles.replace("[N+](=O)[O-]", "").replace("O=[N+]([O-])", "")
    return _NEUTRAL_BRACKETS.issuperset(_BRACKETS.findall(rest))


@lru_cache(maxsize=_CACHE_SIZE)
def _standardize(smiles: str, mode: Standardization, limits: MoleculeLimits) -> Standardized:
    drawn = parse_smiles(smiles, limits)
    notes = composition_notes(drawn)
    if mode == "as-drawn":
        notes |= fragment_notes(drawn) | charge_notes(drawn)
        return Standardized(smiles, tuple(sorted(notes)))
    try:
        with QuietLog():
            result = _fixed_point(drawn, mode, notes)
    except (ValueError, RuntimeError) as error:  # RDKit's own invariants raise RuntimeError.
        reason = f"cannot be standardized: {first_reason(str(error))}"
        raise MoleculeError(smiles, "unsupported", reason) from None
    notes |= charge_notes(result)
    return Standardized(
        smiles if result is drawn else Chem.MolToSmiles(result), tuple(sorted(notes))
    )


def _fixed_point(drawn: Chem.Mol, mode: Standardization, notes: set[str]) -> Chem.Mol:
    """Standardize until the SMILES no longer changes; notes on changes are added to ``notes``.

    Rounds can alternate where RDKit's choice of an acid to ionize depends on the order of atoms;
    the smallest SMILES of the cycle is then the result.
    """
    if mode == "cleanup" and _is_clean(drawn):
        notes |= fragment_notes(drawn)
        return drawn
    mol = _standardize_once(drawn, mode, notes)
    history = {Chem.MolToSmiles(drawn): drawn, Chem.MolToSmiles(mol): mol}
    if len(history) == 1:
        return drawn
    for _ in range(_MAX_ROUNDS):
        seen = list(history)
        mol = _standardize_once(parse_standardized(seen[-1]), mode, set())
        smiles = Chem.MolToSmiles(mol)
        if smiles in history:
            return history[min(seen[seen.index(smiles) :])]
        history[smiles] = mol
    raise ValueError("the result changes in every round")


def _is_clean(mol: Chem.Mol) -> bool:
    """Tell that no step of ``cleanup`` changes a molecule, in a tenth of the time of all steps."""
    return not (
        matches(mol, _UNCLEAN)
        or mol.GetAtomsMatchingQuery(isotopes())
        or mol.GetAtomsMatchingQuery(mapped_atoms())
        or _has_acid_stronger_than_anion(mol)
    )


def _has_acid_stronger_than_anion(mol: Chem.Mol) -> bool:
    return (matches(mol, _WEAK_ANION) and matches(mol, "[!#6;+0;!H0]")) or (
        matches(mol, _STRONG_ACID) and matches(mol, "[-]")
    )


def _standardize_once(mol: Chem.Mol, mode: Standardization, notes: set[str]) -> Chem.Mol:
    folded = _fold_hydrogens(mol)
    disconnected = disconnect_metals(folded)
    if disconnected is not folded:
        notes.add("metal bonds removed")
    result = _move_protons(_choose_form(disconnected, notes), notes)
    if mode == "parent":
        result = _to_parent(result, notes)
    else:
        notes |= fragment_notes(result)
    Chem.AssignStereochemistry(result, cleanIt=True, force=True)
    return result


def _fold_hydrogens(mol: Chem.Mol) -> Chem.Mol:
    """Replace isotopes by their element, and make hydrogens implicit where that is possible."""
    folded = Chem.Mol(mol)
    for marked in (isotopes(), mapped_atoms()):
        for atom in folded.GetAtomsMatchingQuery(marked):
            atom.SetIsotope(0)
            atom.SetAtomMapNum(0)
    return Chem.RemoveHs(folded, _hydrogens_to_remove()) if matches(folded, "[#1]") else folded


def _choose_form(mol: Chem.Mol, notes: set[str]) -> Chem.Mol:
    """Draw groups and resonance forms in their usual form."""
    normalized = _normalizer().normalize(mol) if matches(mol, _UNUSUAL_GROUP) else mol
    chosen = canonical_resonance(normalized)
    if chosen is not mol and _flat_smiles(chosen) != _flat_smiles(mol):
        notes.add("resonance form changed")
    return chosen


def _move_protons(mol: Chem.Mol, notes: set[str]) -> Chem.Mol:
    """Ionize the strongest acids of a molecule that has anions of weaker ones."""
    # RDKit would also make ions of lone atoms such as a chlorine radical.
    if not _has_acid_stronger_than_anion(mol) or matches(mol, "[X0;+0]"):
        return mol
    moved = rdMolStandardize.Reionizer().reionize(mol)
    if _flat_smiles(moved) == _flat_smiles(mol):
        return mol
    notes.add("protons moved")
    return _choose_form(moved, set())


def _to_parent(mol: Chem.Mol, notes: set[str]) -> Chem.Mol:
    """Return the largest organic fragment, neutralized; salts without carbon stay whole."""
    fragments = Chem.GetMolFrags(mol)
    if len(fragments) > 1:
        if not matches(mol, "[#6]"):
            notes |= fragment_notes(mol)
            return mol
        notes |= fragment_notes(mol, ", largest kept")
        mol = rdMolStandardize.LargestFragmentChooser(preferOrganic=True).choose(mol)
    # Hydrides are not moved: a carbocation and a borohydride have no neutral form.
    uncharger = rdMolStandardize.Uncharger(canonicalOrder=True, protonationOnly=True)
    neutral = uncharger.uncharge(mol)
    smiles = Chem.MolToSmiles(neutral)
    # RDKit protonates an aromatic carbanion to a molecule that it cannot read again.
    if smiles == Chem.MolToSmiles(mol) or Chem.MolFromSmiles(smiles) is None:
        return mol
    notes.add("neutralized")
    return _choose_form(neutral, set())


def _flat_smiles(mol: Chem.Mol) -> str:
    return Chem.MolToSmiles(mol, isomericSmiles=False)


@cache
def _normalizer() -> rdMolStandardize.Normalizer:
    lines = (f"{name}\t{reaction}" for name, reaction in _NORMALIZATIONS.items())
    return rdMolStandardize.NormalizerFromData(
        "\n".join(lines), rdMolStandardize.CleanupParameters()
    )


@cache
def _hydrogens_to_remove() -> Any:
    """Return options that also remove hydrogens whose position is an E/Z mark, as in ``C=N/[H]``.

    Imines invert at nitrogen, and a SMILES without the hydrogen cannot have the mark.
    """
    parameters: Any = Chem.RemoveHsParameters()  # RDKit's stubs give its fields the wrong type.
    parameters.removeDefiningBondStereo = True
    parameters.removeMapped = True
    return parameters
