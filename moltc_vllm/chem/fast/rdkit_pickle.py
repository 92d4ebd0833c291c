"""RDKit's pickle of a molecule, read by compiled code: feature indices without a Python loop.

``Mol.ToBinary`` writes a private format. Nothing here trusts it: every byte read is inside the
buffer, every index is checked against its table, and what is not known (queries, dative bonds,
dummy atoms, atom maps, another format) gives `UNKNOWN`, upon which the caller takes the plain
loops, whose errors have names. `route` compares both at first use.

This module imports numba, which takes a quarter of a second: do not import it at a top level.

Source: RDKit, ``Code/GraphMol/MolPickler.cpp`` (``_pickle``, ``_pickleAtom``, ``_pickleBond``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numba
import numpy as np
import numpy.typing as npt

from moltc_vllm.chem.graph import ATOM_TYPES, CHIRALITIES, MAX_ATOMS

FORMAT_MAJOR: Final = 16
UNKNOWN: Final = -1

_HEADER_BYTES: Final = 30  # magic, 0, major, minor, patch, atoms, bonds (int32), flags, tag
_FIRST_ATOM: Final = 0x01  # tag
_FIRST_BOND: Final = 0x0B  # tag
_AFTER_BONDS: Final = (0x42, 0x17)  # tags: symmetrised rings; no rings and thus nothing to follow
_ATOM_FLAGS: Final = 0x60  # aromatic, no implicit hydrogens; all others bring further bytes
_BOND_FLAGS: Final = 0x6E  # aromatic, conjugated, type, direction, stereo
_NARROW: Final = 256  # atom numbers are one byte if atoms and bonds are fewer than this, else four

_Function = TypeVar("_Function", bound=Callable[..., Any])
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]


def jit(function: _Function) -> _Function:
    """Compile at the first call, and keep the machine code on disk where that is possible."""
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # "no locator available": a read-only installation without a home
        return numba.njit(function)


@jit
def _byte(data: bytes, at: int) -> int:
    """One byte as a signed 64-bit number; the caller has checked that it is there."""
    value: Any = np.int64(data[at])
    return value


@jit
def _int32(data: bytes, at: int) -> int:
    """Four bytes, little-endian, taken as unsigned; the caller has checked that they are there."""
    low = _byte(data, at) | _byte(data, at + 1) << 8
    return low | _byte(data, at + 2) << 16 | _byte(data, at + 3) << 24


@jit
def sizes_of(data: bytes, begin: int, end: int) -> tuple[int, int]:
    """Atoms and bonds of the molecule in ``data[begin:end]``; `UNKNOWN` for both if not known."""
    if begin < 0 or end > len(data) or end - begin < _HEADER_BYTES:
        return UNKNOWN, UNKNOWN
    magic = _int32(data, begin) == 0xDEADBEEF and _int32(data, begin + 4) == 0
    if not magic or _int32(data, begin + 8) != FORMAT_MAJOR:
        return UNKNOWN, UNKNOWN
    if data[begin + 28] != 0x80 or data[begin + 29] != _FIRST_ATOM:
        return UNKNOWN, UNKNOWN
    atoms, bonds = _int32(data, begin + 20), _int32(data, begin + 24)
    # An atom is six bytes or more, a bond three: larger counts would only ask for memory.
    room = end - begin - _HEADER_BYTES
    if not 1 <= atoms <= MAX_ATOMS or 6 * atoms + 3 * bonds > room:
        return UNKNOWN, UNKNOWN
    if bonds > MAX_ATOMS:  # no atom's degree may leave 16 bits, whatever the bytes say
        return UNKNOWN, UNKNOWN
    return atoms, bonds


@jit
def _read_atom(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Element (atomic number - 1), chirality and where the next atom begins, or `UNKNOWN`."""
    if at + 6 > end:
        return UNKNOWN, 0, 0
    element = _byte(data, at) - 1
    present = _int32(data, at + 2)
    if not 0 <= element < ATOM_TYPES or data[at + 1] & ~_ATOM_FLAGS or present >> 9:
        return UNKNOWN, 0, 0
    at += 6
    chirality = 0
    for bit in range(9):
        if present >> bit & 1:
            size = 4 if bit in (0, 8) else 1  # 0: mass difference, 8: isotope
            if at + size > end:
                return UNKNOWN, 0, 0
            if bit == 2:
                chirality = _byte(data, at)
            at += size
    if chirality >= CHIRALITIES:
        return UNKNOWN, 0, 0
    return element, chirality, at


@jit
def _read_bond(
    data: bytes, at: int, end: int, width: int, atoms: int
) -> tuple[int, int, int, int, int]:
    """Type, direction, begin and end atom, and where the next bond begins, or `UNKNOWN`."""
    unknown = UNKNOWN, 0, 0, 0, 0
    if at + 2 * width + 1 > end:
        return unknown
    if width == 1:
        first, second = _byte(data, at), _byte(data, at + 1)
    else:
        first, second = _int32(data, at), _int32(data, at + 4)
    flags = data[at + 2 * width]
    at += 2 * width + 1
    if first >= atoms or second >= atoms or first == second or flags & ~_BOND_FLAGS:
        return unknown
    kind, direction = 1, 0
    if flags & 0x08:
        if at >= end:
            return unknown
        kind = _byte(data, at)
        at += 1
    if flags & 0x04:
        if at >= end:
            return unknown
        direction = _byte(data, at)
        at += 1
    if flags & 0x02:  # stereo: its kind, a count and that many atom numbers
        if at + 2 > end:
            return unknown
        at += 2 + _byte(data, at + 1) * width
    if not (1 <= kind <= 3 or kind == 12) or direction not in (0, 3, 4) or at > end:
        return unknown
    kind = 3 if kind == 12 else kind - 1  # 12: AROMATIC
    if direction != 0:
        direction = 5 - direction  # 4: ENDUPRIGHT, 3: ENDDOWNRIGHT
    return kind, direction, first, second, at


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
) -> bool:
    """Read one molecule into `MolGraph`'s arrays.

    Args:
        data: Results of ``mol.ToBinary(PropertyPickleOptions.NoProps)``.
        begin: Where the molecule begins.
        end: Where it ends.
        atomic_number: ``[>= V]``, out.
        chirality: ``[>= V]``, out.
        bond_index: ``[2, >= E]``, out.
        bond_type: ``[>= E]``, out.
        bond_direction: ``[>= E]``, out.

    Returns:
        Whether it was understood; if not, the arrays hold nothing of use.
    """
    atoms, bonds = sizes_of(data, begin, end)
    if atoms < 0 or atoms > min(len(atomic_number), len(chirality)):
        return False
    if bonds > min(bond_index.shape[1], len(bond_type), len(bond_direction)):
        return False
    at = begin + _HEADER_BYTES
    for atom in range(atoms):
        element, chiral, at = _read_atom(data, at, end)
        if element < 0:
            return False
        atomic_number[atom] = element
        chirality[atom] = chiral
    if at >= end or data[at] != _FIRST_BOND:
        return False
    at += 1
    width = 1 if atoms < _NARROW and bonds < _NARROW else 4
    for bond in range(bonds):
        kind, direction, first, second, at = _read_bond(data, at, end, width, atoms)
        if kind < 0:
            return False
        bond_index[0, bond] = first
        bond_index[1, bond] = second
        bond_type[bond] = kind
        bond_direction[bond] = direction
    return at < end and (data[at] == _AFTER_BONDS[0] or data[at] == _AFTER_BONDS[1])
