"""RDKit's pickles to `PackedMolecule`'s arrays, compiled; see `binary`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moltc_vllm.chem.fast.rdkit_pickle import U8, U16, jit, read_graph, sizes_of
from moltc_vllm.chem.graph import BOND_DIRECTIONS

I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]


@jit
def pack_one(
    data: bytes, begin: int, end: int, atoms: U8, degree: I16, source: I16, bond_code: U8
) -> bool:
    """Read one molecule into `PackedMolecule`'s arrays.

    Args:
        data: As `rdkit_pickle.read_graph`'s.
        begin: Where the molecule begins.
        end: Where it ends.
        atoms: ``[>= V, 2]``, out.
        degree: ``[>= V]``, out.
        source: ``[>= 2 E]``, out.
        bond_code: ``[>= 2 E]``, out.

    Returns:
        Whether it was understood; if not, the arrays hold nothing of use.
    """
    v, e = sizes_of(data, begin, end)
    if not 0 <= v <= min(len(atoms), len(degree)) or 2 * e > min(len(source), len(bond_code)):
        return False
    element, chirality = np.empty(v, np.uint8), np.empty(v, np.uint8)
    index = np.empty((2, e), np.uint16)
    kind, direction = np.empty(e, np.uint8), np.empty(e, np.uint8)
    if not read_graph(data, begin, end, element, chirality, index, kind, direction):
        return False
    for atom in range(v):
        atoms[atom, 0] = element[atom]
        atoms[atom, 1] = chirality[atom]
    _sort_bonds(index, kind, direction, degree[:v], source, bond_code)
    return True


@jit
def room_for(data: bytes, offsets: I64) -> tuple[int, int]:
    """Atoms and directed bonds that `pack_many` writes at most, by the molecules' headers."""
    num_atoms = num_bonds = 0
    for number in range(len(offsets) - 1):
        atoms, bonds = sizes_of(data, offsets[number], offsets[number + 1])
        if atoms > 0:
            num_atoms, num_bonds = num_atoms + atoms, num_bonds + 2 * bonds
    return num_atoms, num_bonds


@jit
def pack_many(
    data: bytes,
    offsets: I64,
    sizes: I64,
    atoms: U8,
    degree: I16,
    source: I16,
    bond_code: U8,
) -> tuple[int, int]:
    """Read molecules into the arrays of `PackedMolecule`, one after another.

    Args:
        data: Results of ``ToBinary``, joined.
        offsets: ``[B + 1]``, where each begins.
        sizes: ``[B, 2]``, out: atoms and directed bonds, 0 and 0 of what is not understood.
        atoms: ``[>= sum of V, 2]``, out.
        degree: ``[>= sum of V]``, out.
        source: ``[>= sum of 2 E]``, out.
        bond_code: ``[>= sum of 2 E]``, out.

    Returns:
        Atoms and directed bonds in all.
    """
    v = e = 0
    for number in range(len(offsets) - 1):
        sizes[number, 0] = sizes[number, 1] = 0
        begin, end = offsets[number], offsets[number + 1]
        if pack_one(data, begin, end, atoms[v:], degree[v:], source[e:], bond_code[e:]):
            num_atoms, num_bonds = sizes_of(data, begin, end)
            sizes[number, 0], sizes[number, 1] = num_atoms, 2 * num_bonds
            v, e = v + num_atoms, e + 2 * num_bonds
    return v, e


@jit
def _sort_bonds(
    index: U16, kind: U8, direction: U8, degree: I16, source: I16, bond_code: U8
) -> None:
    """Counting sort by target, in `pack`'s order: all bonds forth, then all bonds back."""
    degree[:] = 0
    for target in index.flat:
        degree[target] += 1
    place = np.empty(len(degree), np.int64)
    total = 0
    for atom in range(len(degree)):
        place[atom] = total
        total += degree[atom]
    for way in range(2):
        for bond in range(len(kind)):
            target = index[1 - way, bond]
            source[place[target]] = index[way, bond]
            bond_code[place[target]] = kind[bond] * BOND_DIRECTIONS + direction[bond]
            place[target] += 1
