"""The table of properties that RDKit calculates from a molecule's structure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

from moltc_vllm.chem import parse_smiles

_CACHE_SIZE = 1 << 17  # molecules, with a tuple of ten numbers each


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A property that can be calculated for every molecule.

    Attributes:
        name: Key in the instructions.
        phrase: Name in a sentence.
        unit: Text after the value; empty for counts and logarithms.
        decimals: Number of digits after the decimal point; 0 for counts.
        bounds: Range of plausible values; a value outside is left out of the instructions.
        calculate: RDKit function that calculates the value.
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
"""All descriptors, in the order of their sentences in an instruction."""


@lru_cache(maxsize=_CACHE_SIZE)
def compute_descriptors(smiles: str) -> tuple[float, ...]:
    """Compute the value of every descriptor, in the order of `DESCRIPTORS`.

    Args:
        smiles: SMILES of the molecule, preferably canonical, because it is the key of the cache.

    Raises:
        MoleculeError: If the SMILES cannot be parsed.
    """
    molecule = parse_smiles(smiles)
    return tuple(float(descriptor.calculate(molecule)) for descriptor in DESCRIPTORS)
