"""The table of properties that are calculated from a molecule's structure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

from moltc_vllm.chem import parse_smiles

_KEPT = 1 << 17  # molecules; a tuple of ten numbers each


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One property that every molecule has.

    Attributes:
        name: Key in the instructions.
        phrase: As it is called in a sentence.
        unit: As it stands after the value; empty for counts and logarithms.
        decimals: Digits after the point; 0 for counts.
        bounds: Plausible values; one outside says nothing that should be learned.
        calculate: RDKit's function.
    """

    name: str
    phrase: str
    unit: str
    decimals: int
    bounds: tuple[float, float]
    calculate: Callable[[Chem.Mol], float]


def _log_p(molecule: Chem.Mol) -> float:
    return rdMolDescriptors.CalcCrippenDescriptors(molecule)[0]


DESCRIPTORS = (
    Descriptor("weight", "molecular weight", "g/mol", 1, (1, 3000), rdMolDescriptors._CalcMolWt),
    Descriptor("log_p", "calculated logP", "", 2, (-20, 30), _log_p),
    Descriptor(
        "tpsa", "polar surface area", "square angstroms", 1, (0, 1000), rdMolDescriptors.CalcTPSA
    ),
    Descriptor(
        "donors", "number of hydrogen bond donors", "", 0, (0, 50), rdMolDescriptors.CalcNumHBD
    ),
    Descriptor(
        "acceptors",
        "number of hydrogen bond acceptors",
        "",
        0,
        (0, 100),
        rdMolDescriptors.CalcNumHBA,
    ),
    Descriptor(
        "rotatable_bonds",
        "number of rotatable bonds",
        "",
        0,
        (0, 100),
        rdMolDescriptors.CalcNumRotatableBonds,
    ),
    Descriptor("rings", "number of rings", "", 0, (0, 40), rdMolDescriptors.CalcNumRings),
    Descriptor(
        "aromatic_rings",
        "number of aromatic rings",
        "",
        0,
        (0, 30),
        rdMolDescriptors.CalcNumAromaticRings,
    ),
    Descriptor(
        "fraction_sp3", "fraction of sp3 carbons", "", 2, (0, 1), rdMolDescriptors.CalcFractionCSP3
    ),
    Descriptor("charge", "formal charge", "", 0, (-12, 12), Chem.GetFormalCharge),
)
"""In the order in which they are told."""


@lru_cache(maxsize=_KEPT)
def describe(key: str) -> tuple[float, ...]:
    """The value of every descriptor, in the order of the table.

    Args:
        key: A SMILES, best the canonical one: values are cached by it.

    Raises:
        MoleculeError: If it cannot be read.
    """
    molecule = parse_smiles(key)
    return tuple(float(one.calculate(molecule)) for one in DESCRIPTORS)
