"""Read RDKit's pickle of a molecule in compiled code, without a Python loop over atoms.

``Mol.ToBinary`` writes a private format, which the functions here do not trust: every read stays
inside the buffer, and every index is checked against its table. For features that they do not
support (queries, dative bonds, dummy atoms, atom maps, another version of the format) they return
`UNSUPPORTED`; the caller then uses the Python loops, whose errors name the atom or bond. `dispatch`
compares both implementations at first use.

This module imports numba, which takes a quarter of a second: do not import it at the top of a
module.

Source: RDKit, ``Code/GraphMol/MolPickler.cpp`` (``_pickle``, ``_pickleAtom``, ``_pickleBond``,
``_pickleSSSR``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numba
import numpy as np
import numpy.typing as npt

from moltc_vllm.chem import atom_detail
from moltc_vllm.chem.graph import ATOM_TYPES, CHIRALITIES, MAX_ATOMS

FORMAT_MAJOR: Final = 16
UNSUPPORTED: Final = -1

_HEADER_BYTES: Final = 30  # magic, 0, major, minor, patch, atoms, bonds (int32 each), flags, tag
_ATOMS_TAG: Final = 0x01
_BONDS_TAG: Final = 0x0B
_RINGS_TAG: Final = 0x42  # symmetrized rings; molecules without perceived rings have another tag
_AROMATIC_FLAG: Final = 0x40
_ATOM_FLAGS: Final = 0x60  # aromatic, no implicit hydrogens; other flags add bytes to the atom
_ATOM_BITS: Final = 9  # stored properties of an atom that `_read_atom` knows
_BOND_FLAGS: Final = 0x6E  # aromatic, conjugated, type, direction, stereo
# With fewer atoms and bonds than this, an atom index takes one byte, otherwise four.
_WIDE_INDEX_FROM: Final = 256

_Function = TypeVar("_Function", bound=Callable[..., Any])
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
I64 = npt.NDArray[np.int64]


def jit(function: _Function) -> _Function:
    """Compile a function at its first call, and cache the machine code on disk if possible."""
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # "no locator available": read-only installation, no home directory
        return numba.njit(function)


_detail_code = jit(atom_detail.detail_code)
_count_lone_pairs = jit(atom_detail.count_lone_pairs)
_can_conjugate = jit(atom_detail.can_conjugate)
_classify_hybridization = jit(atom_detail.classify_hybridization)

# Columns of the table of numbers that detail codes are computed from.
_CHARGE, _HYDROGENS, _RADICALS, _AROMATIC, _RING = range(5)
_NEIGHBORS, _VALENCE, _PI, _CONJUGATED, _HYDROGEN_ATOMS, _COLUMNS = range(5, 11)


@jit
def _read_byte(data: bytes, offset: int) -> int:
    """Read one byte as int64; the caller has checked that it is inside the buffer."""
    value: Any = np.int64(data[offset])
    return value


@jit
def _read_uint32(data: bytes, offset: int) -> int:
    """Read a little-endian integer; the caller has checked that it is inside the buffer."""
    low = _read_byte(data, offset) | _read_byte(data, offset + 1) << 8
    return low | _read_byte(data, offset + 2) << 16 | _read_byte(data, offset + 3) << 24


@jit
def read_sizes(data: bytes, begin: int, end: int) -> tuple[int, int]:
    """Read the numbers of atoms and bonds of the molecule in ``data[begin:end]``.

    Both are `UNSUPPORTED` if the header has another format or contains impossible numbers.
    """
    if begin < 0 or end > len(data) or end - begin < _HEADER_BYTES:
        return UNSUPPORTED, UNSUPPORTED
    magic = _read_uint32(data, begin) == 0xDEADBEEF and _read_uint32(data, begin + 4) == 0
    if not magic or _read_uint32(data, begin + 8) != FORMAT_MAJOR:
        return UNSUPPORTED, UNSUPPORTED
    if data[begin + 28] != 0x80 or data[begin + 29] != _ATOMS_TAG:
        return UNSUPPORTED, UNSUPPORTED
    atoms, bonds = _read_uint32(data, begin + 20), _read_uint32(data, begin + 24)
    # An atom takes at least six bytes and a bond three. Without this check, a corrupt header could
    # make the caller allocate any amount of memory.
    body_bytes = end - begin - _HEADER_BYTES
    if not 1 <= atoms <= MAX_ATOMS or 6 * atoms + 3 * bonds > body_bytes:
        return UNSUPPORTED, UNSUPPORTED
    if bonds > MAX_ATOMS:  # The degree of an atom must fit 16 bits even in a corrupt pickle.
        return UNSUPPORTED, UNSUPPORTED
    return atoms, bonds


@jit
def _read_atom(data: bytes, offset: int, end: int, numbers: I64) -> tuple[int, int, int]:
    """Read element (atomic number - 1), chirality and the offset of the next atom.

    Charge, hydrogens, radical electrons and aromaticity are added to the atom's row ``numbers``.
    The element is `UNSUPPORTED` if the atom is not supported.
    """
    if offset + 6 > end:
        return UNSUPPORTED, 0, 0
    element = _read_byte(data, offset) - 1
    flags = _read_byte(data, offset + 1)
    property_bits = _read_uint32(data, offset + 2)
    if not 0 <= element < ATOM_TYPES or flags & ~_ATOM_FLAGS or property_bits >> _ATOM_BITS:
        return UNSUPPORTED, 0, 0
    numbers[_AROMATIC] = flags & _AROMATIC_FLAG
    offset += 6
    chirality = 0
    for bit in range(_ATOM_BITS):
        if property_bits >> bit & 1:
            size = 4 if bit in (0, 8) else 1  # bit 0: mass difference, bit 8: isotope
            if offset + size > end:
                return UNSUPPORTED, 0, 0
            value = _read_byte(data, offset)
            if bit == 1:  # formal charge, signed
                numbers[_CHARGE] = value if value < 128 else value - 256
            elif bit == 2:  # chirality tag
                chirality = value
            elif bit in (4, 6):  # hydrogens in brackets, implicit hydrogens
                numbers[_HYDROGENS] += value
            elif bit == 7:
                numbers[_RADICALS] = value
            offset += size
    if chirality >= CHIRALITIES:
        return UNSUPPORTED, 0, 0
    return element, chirality, offset


@jit
def _read_bond(
    data: bytes, offset: int, end: int, width: int, atoms: int
) -> tuple[int, int, int, int, int]:
    """Read type, direction, begin atom, end atom and the offset of the next bond.

    Atom indices are ``width`` bytes wide. The type is `UNSUPPORTED` if the bond is not supported.
    """
    unsupported = UNSUPPORTED, 0, 0, 0, 0
    if offset + 2 * width + 1 > end:
        return unsupported
    if width == 1:
        first, second = _read_byte(data, offset), _read_byte(data, offset + 1)
    else:
        first, second = _read_uint32(data, offset), _read_uint32(data, offset + 4)
    flags = data[offset + 2 * width]
    offset += 2 * width + 1
    if first >= atoms or second >= atoms or first == second or flags & ~_BOND_FLAGS:
        return unsupported
    kind, direction = 1, 0
    if flags & 0x08:
        if offset >= end:
            return unsupported
        kind = _read_byte(data, offset)
        offset += 1
    if flags & 0x04:
        if offset >= end:
            return unsupported
        direction = _read_byte(data, offset)
        offset += 1
    if flags & 0x02:  # stereo: its type, a count, and that many atom indices
        if offset + 2 > end:
            return unsupported
        offset += 2 + _read_byte(data, offset + 1) * width
    if not (1 <= kind <= 3 or kind == 12) or direction not in (0, 3, 4) or offset > end:
        return unsupported
    kind = 3 if kind == 12 else kind - 1  # RDKit's 12 is AROMATIC.
    if direction != 0:
        direction = 5 - direction  # RDKit's 4 is ENDUPRIGHT, 3 is ENDDOWNRIGHT.
    return kind, direction, first, second, offset


@jit
def _read_ring_sizes(
    data: bytes, offset: int, end: int, width: int, atoms: int, numbers: I64
) -> bool:
    """Read the smallest ring of every atom into ``numbers``; return whether it is supported.

    Every set of smallest rings contains, for each atom, a ring of the smallest possible size, so
    the sizes do not depend on the rings that RDKit chose.
    """
    if offset + 5 > end or data[offset] != _RINGS_TAG:
        return False
    rings = _read_uint32(data, offset + 1)
    offset += 5
    for _ in range(rings):
        if offset + width > end:
            return False
        size = _read_byte(data, offset) if width == 1 else _read_uint32(data, offset)
        offset += width
        if size > atoms or offset + size * width > end:
            return False
        for _ in range(size):
            atom = _read_byte(data, offset) if width == 1 else _read_uint32(data, offset)
            offset += width
            if atom >= atoms:
                return False
            if numbers[atom, _RING] == 0 or size < numbers[atom, _RING]:
                numbers[atom, _RING] = size
    return True


@jit
def _write_details(
    atomic_number: U8, bond_index: U16, bond_type: U8, bonds: int, numbers: I64, detail: U16
) -> None:
    """Compute the detail code of every atom, like `featurize_loops`.

    Args:
        atomic_number: ``[>= V]``, atomic numbers - 1.
        bond_index: ``[2, >= E]``.
        bond_type: ``[>= E]``.
        bonds: Number of bonds (E).
        numbers: ``[V, 10]`` with charges, hydrogens, radicals, aromaticity and ring sizes; the
            columns that depend on bonds are filled in.
        detail: Output, ``[>= V]``.
    """
    for bond in range(bonds):
        for side in range(2):
            row = numbers[bond_index[side, bond]]
            row[_NEIGHBORS] += 1
            # Aromatic bonds count as one: the hybridization of their atoms ignores the valence.
            row[_VALENCE] += 1 if bond_type[bond] == 3 else bond_type[bond] + 1
            row[_PI] |= bond_type[bond] != 0
    for bond in range(bonds):
        for side in range(2):
            atom, neighbor = bond_index[side, bond], bond_index[1 - side, bond]
            element = atomic_number[neighbor] + 1
            numbers[atom, _HYDROGEN_ATOMS] += element == 1
            if numbers[neighbor, _PI] and _can_conjugate(element):
                numbers[atom, _CONJUGATED] = 1
    for atom in range(len(numbers)):
        row, element = numbers[atom], atomic_number[atom] + 1
        charge, hydrogens, radicals = row[_CHARGE], row[_HYDROGENS], row[_RADICALS]
        hybridization = _classify_hybridization(
            row[_AROMATIC] != 0,
            row[_NEIGHBORS] + hydrogens,
            _count_lone_pairs(element, charge, radicals, row[_VALENCE] + hydrogens),
            radicals,
            row[_CONJUGATED] != 0 and _can_conjugate(element),
        )
        hydrogens += row[_HYDROGEN_ATOMS]
        detail[atom] = _detail_code(charge, hydrogens, row[_RING], hybridization, radicals)


@jit
def read_graph(
    data: bytes,
    begin: int,
    end: int,
    atomic_number: U8,
    chirality: U8,
    bond_index: U16,
    bond_type: U8,
    bond_direction: U8,
    detail: U16,
) -> bool:
    """Read one molecule into the arrays of a `MolGraph`.

    Args:
        data: Buffer of one or several results of ``mol.ToBinary(PropertyPickleOptions.NoProps)``.
        begin: Offset of the molecule's first byte.
        end: Offset after the molecule's last byte.
        atomic_number: Output, ``[>= V]``.
        chirality: Output, ``[>= V]``.
        bond_index: Output, ``[2, >= E]``.
        bond_type: Output, ``[>= E]``.
        bond_direction: Output, ``[>= E]``.
        detail: Output, ``[>= V]``.

    Returns:
        Whether the molecule is supported; if not, the content of the arrays is undefined.
    """
    atoms, bonds = read_sizes(data, begin, end)
    if atoms < 0 or atoms > min(len(atomic_number), len(chirality), len(detail)):
        return False
    if bonds > min(bond_index.shape[1], len(bond_type), len(bond_direction)):
        return False
    numbers = np.zeros((atoms, _COLUMNS), np.int64)
    offset = begin + _HEADER_BYTES
    for atom in range(atoms):
        element, chiral, offset = _read_atom(data, offset, end, numbers[atom])
        if element < 0:
            return False
        atomic_number[atom] = element
        chirality[atom] = chiral
    if offset >= end or data[offset] != _BONDS_TAG:
        return False
    offset += 1
    width = 1 if atoms < _WIDE_INDEX_FROM and bonds < _WIDE_INDEX_FROM else 4
    for bond in range(bonds):
        kind, direction, first, second, offset = _read_bond(data, offset, end, width, atoms)
        if kind < 0:
            return False
        bond_index[0, bond] = first
        bond_index[1, bond] = second
        bond_type[bond] = kind
        bond_direction[bond] = direction
    if not _read_ring_sizes(data, offset, end, width, atoms, numbers):
        return False
    _write_details(atomic_number, bond_index, bond_type, bonds, numbers, detail)
    return True
