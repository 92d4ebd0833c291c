"""The detail code of an atom: the features that go beyond element and chirality.

A detail code is one integer that combines five features of an atom as digits of a mixed radix:
formal charge, number of hydrogens, size of the smallest ring, hybridization or aromaticity, and
number of radical electrons. Encoders with extended atom features look it up; published ones ignore
it. The feature table is in ``docs/concepts/atom-features.md``.

`featurize_loops` and the compiled `rdkit_pickle` call the functions here with values from RDKit's
atoms and from its pickle. They contain only operations that numba can compile.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import numpy as np

MAX_CHARGE: Final = 2
"""Largest absolute formal charge with a value of its own."""

MAX_HYDROGENS: Final = 4
"""Largest number of hydrogens with a value of its own."""

MAX_RADICALS: Final = 2
"""Largest number of radical electrons with a value of its own."""

_SMALLEST_RING, _LARGEST_RING = 3, 8

AROMATIC, SP, SP2, SP3, OTHER = range(5)
"""Values of the feature ``hybridization``."""

DETAIL_SIZES: Final = MappingProxyType(
    {
        "formal_charge": 2 * MAX_CHARGE + 1,
        "hydrogens": MAX_HYDROGENS + 1,
        "ring_size": _LARGEST_RING - _SMALLEST_RING + 2,
        "hybridization": 5,
        "radicals": MAX_RADICALS + 1,
    }
)
"""Number of values of each feature, from the most to the least significant digit of the code."""

_CHARGES, _HYDROGENS, _RINGS, _HYBRIDIZATIONS, _RADICALS = DETAIL_SIZES.values()

DETAIL_CODES: Final = _CHARGES * _HYDROGENS * _RINGS * _HYBRIDIZATIONS * _RADICALS
"""Number of detail codes (2,625)."""

_SECOND_PERIOD_END: Final = 10  # atomic number of neon


def _valence_electrons() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    table = np.zeros(128, np.int64)
    for electrons, elements in (
        (3, (5,)),  # B
        (4, (6, 14, 32)),  # C, Si, Ge
        (5, (7, 15, 33, 51)),  # N, P, As, Sb
        (6, (8, 16, 34, 52)),  # O, S, Se, Te
        (7, (9, 17, 35, 53)),  # F, Cl, Br, I
    ):
        table[list(elements)] = electrons
    return table


VALENCE_ELECTRONS: Final = _valence_electrons()
"""Valence electrons by atomic number; 0 for hydrogen, metals and noble gases, whose bonds
hybridization does not describe."""


def detail_code(
    charge: int, hydrogens: int, ring_size: int, hybridization: int, radicals: int
) -> int:
    """Combine the features of an atom to its detail code.

    Args:
        charge: Formal charge.
        hydrogens: Number of attached hydrogens, whether drawn as atoms or not.
        ring_size: Number of atoms of the smallest ring that contains the atom; 0 for none.
        hybridization: Result of `classify_hybridization`.
        radicals: Number of unpaired electrons.

    Returns:
        Code from 0 to ``DETAIL_CODES - 1``.
    """
    code = min(max(charge, -MAX_CHARGE), MAX_CHARGE) + MAX_CHARGE
    code = code * _HYDROGENS + min(hydrogens, MAX_HYDROGENS)
    ring = 0 if ring_size < _SMALLEST_RING else min(ring_size, _LARGEST_RING) - _SMALLEST_RING + 1
    code = code * _RINGS + ring
    code = code * _HYBRIDIZATIONS + hybridization
    return code * _RADICALS + min(radicals, MAX_RADICALS)


def count_lone_pairs(atomic_number: int, charge: int, radicals: int, valence: int) -> int:
    """Count the lone pairs of an atom; -1 if hybridization does not describe the element.

    Args:
        atomic_number: Atomic number.
        charge: Formal charge.
        radicals: Number of unpaired electrons.
        valence: Sum of bond orders, including bonds to hydrogens.
    """
    electrons = VALENCE_ELECTRONS[atomic_number]
    if electrons == 0:
        return -1
    return max(electrons - charge - valence - radicals, 0) // 2


def can_conjugate(atomic_number: int) -> bool:
    """Tell whether a lone pair or multiple bond of the element takes part in conjugation.

    Only elements of the second period have p orbitals of the right size: the nitrogen of an amide
    is planar, that of a sulfonamide is not.
    """
    return atomic_number <= _SECOND_PERIOD_END


def classify_hybridization(
    is_aromatic: bool, neighbors: int, lone_pairs: int, radicals: int, is_conjugated: bool
) -> int:
    """Derive an atom's hybridization from the number of its orbitals.

    Args:
        is_aromatic: Whether RDKit perceives the atom as aromatic.
        neighbors: Number of bonded atoms, including all hydrogens.
        lone_pairs: Result of `count_lone_pairs`.
        radicals: Number of unpaired electrons.
        is_conjugated: Whether the element and a neighbor with a multiple or aromatic bond
            both conjugate; see `can_conjugate`.

    Returns:
        One of `AROMATIC`, `SP`, `SP2`, `SP3` and `OTHER`. Neighbors, lone pairs and unpaired
        electrons take one orbital each: two are sp, three sp2, four sp3. A lone pair next to a
        multiple bond makes four orbitals sp2, as in amides, anilines and esters.
    """
    if is_aromatic:
        return AROMATIC
    if lone_pairs < 0 or neighbors == 0:
        return OTHER
    orbitals = neighbors + lone_pairs + radicals
    if orbitals == 4 and neighbors < 4 and lone_pairs > 0 and is_conjugated:
        return SP2
    if orbitals == 4:
        return SP3
    if orbitals == 3:
        return SP2
    return SP if orbitals == 2 else OTHER
