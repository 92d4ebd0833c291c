"""Read RDKit's pickles into `PackedMolecule` arrays in compiled code; see `rdkit_pickle`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moltc_vllm.chem.fast.rdkit_pickle import U8, U16, jit, read_graph, read_sizes
from moltc_vllm.chem.graph import BOND_DIRECTIONS

I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]


@jit
def pack_one(
    data: bytes,
    begin: int,
    end: int,
    atoms: U8,
    degree: I16,
    source: I16,
    bond_code: U8,
    detail: U16,
) -> bool:
    """Read one molecule into the arrays of a `PackedMolecule`.

    Args:
        data: Buffer as in `rdkit_pickle.read_graph`.
        begin: Offset of the molecule's first byte.
        end: Offset after the molecule's last byte.
        atoms: Output, ``[>= V, 2]``.
        degree: Output, ``[>= V]``.
        source: Output, ``[>= 2 E]``.
        bond_code: Output, ``[>= 2 E]``.
        detail: Output, ``[>= V]``.

    Returns:
        Whether the molecule is supported; if not, the content of the arrays is undefined.
    """
    v, e = read_sizes(data, begin, end)
    if not 0 <= v <= min(len(atoms), len(degree), len(detail)) or 2 * e > min(
        len(source), len(bond_code)
    ):
        return False
    element, chirality = np.empty(v, np.uint8), np.empty(v, np.uint8)
    index = np.empty((2, e), np.uint16)
    kind, direction = np.empty(e, np.uint8), np.empty(e, np.uint8)
    if not read_graph(data, begin, end, element, chirality, index, kind, direction, detail):
        return False
    for atom in range(v):
        atoms[atom, 0] = element[atom]
        atoms[atom, 1] = chirality[atom]
    _sort_bonds(index, kind, direction, degree[:v], source, bond_code)
    return True


@jit
def total_sizes(data: bytes, offsets: I64) -> tuple[int, int]:
    """Sum the numbers of atoms and directed bonds in the headers of molecules.

    These are upper bounds on the lengths that `pack_many` writes.
    """
    num_atoms = num_bonds = 0
    for index in range(len(offsets) - 1):
        atoms, bonds = read_sizes(data, offsets[index], offsets[index + 1])
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
    detail: U16,
) -> tuple[int, int]:
    """Read several molecules into the arrays of one `PackedMolecule`, concatenated.

    Args:
        data: Concatenated results of ``ToBinary``.
        offsets: Offsets of the molecules' first bytes and of the end, ``[B + 1]``.
        sizes: Output, ``[B, 2]``: numbers of atoms and directed bonds, 0 and 0 if unsupported.
        atoms: Output, ``[>= sum of V, 2]``.
        degree: Output, ``[>= sum of V]``.
        source: Output, ``[>= sum of 2 E]``.
        bond_code: Output, ``[>= sum of 2 E]``.
        detail: Output, ``[>= sum of V]``.

    Returns:
        Total numbers of atoms and directed bonds.
    """
    v = e = 0
    for index in range(len(offsets) - 1):
        sizes[index, 0] = sizes[index, 1] = 0
        begin, end = offsets[index], offsets[index + 1]
        if pack_one(data, begin, end, atoms[v:], degree[v:], source[e:], bond_code[e:], detail[v:]):
            num_atoms, num_bonds = read_sizes(data, begin, end)
            sizes[index, 0], sizes[index, 1] = num_atoms, 2 * num_bonds
            v, e = v + num_atoms, e + 2 * num_bonds
    return v, e


@jit
def _sort_bonds(
    index: U16, kind: U8, direction: U8, degree: I16, source: I16, bond_code: U8
) -> None:
    """Sort bonds by target (counting sort), in the order of `pack`.

    The bonds of one target are those that end at it, then those that begin at it.
    """
    degree[:] = 0
    for target in index.flat:
        degree[target] += 1
    next_slot = np.empty(len(degree), np.int64)
    total = 0
    for atom in range(len(degree)):
        next_slot[atom] = total
        total += degree[atom]
    for begin_row in range(2):
        for bond in range(len(kind)):
            target = index[1 - begin_row, bond]
            source[next_slot[target]] = index[begin_row, bond]
            bond_code[next_slot[target]] = kind[bond] * BOND_DIRECTIONS + direction[bond]
            next_slot[target] += 1
