"""The compiled reader of RDKit's pickles: as the plain loops, and safe with any bytes."""

import importlib.util
import pickle

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from moltc_vllm.chem import MolGraph, pack
from moltc_vllm.chem.fast import rdkit_pickle
from moltc_vllm.chem.fast.compiled import CompiledReader
from moltc_vllm.chem.fast.rdkit_pickle import read_graph, sizes_of
from moltc_vllm.chem.fast.rdkit_pickle_csr import pack_many, pack_one
from moltc_vllm.chem.fast.self_test import (
    FIELDS,
    MOLECULES,
    difference,
    same_graph,
)
from moltc_vllm.chem.featurize_loops import featurize_loops

READER = CompiledReader()
CANARY = 0xA5


def binary_of(smiles):
    return READER.to_binary(Chem.MolFromSmiles(smiles))


BINARIES = [
    binary_of(smiles)
    for smiles in (
        "C/C=C/[C@H](N)C1CC1",
        "CC(=O)[O-].[NH3+]CCO.[13CH4]",
        ".".join(["[13CH2-]"] * 6),  # long atoms and no bonds: cut off, the counts still fit
        "c1ccccc1" * 3,
        "C" * 300,
        "C1CC1" * 60 + "C=C",
    )
]


@pytest.mark.parametrize("smiles", MOLECULES)
def test_self_test_molecules_are_read_as_by_the_loops(smiles):
    assert difference(READER, smiles, understood=True) is None


@pytest.mark.parametrize("atoms", [254, 255, 256, 257])
@pytest.mark.parametrize("rings", [0, 1, 2])
def test_atom_numbers_of_one_and_of_four_bytes(atoms, rings):
    smiles = "C1CC1" * rings + "C" * (atoms - 3 * rings)
    mol = Chem.MolFromSmiles(smiles)
    assert (mol.GetNumAtoms(), mol.GetNumBonds()) == (atoms, atoms - 1 + rings)
    assert difference(READER, smiles, understood=True) is None


@pytest.mark.parametrize(
    "smiles",
    ["C*", "C[NH2]->[Pt]", "[Re]$[Re]", "C~C", "[CH3:1]C", "[Pt@SP1](F)(Cl)(Br)I", "[Zn]<-N"],
)
def test_what_the_tables_or_the_reader_lack_is_left_to_the_loops(smiles):
    mol = Chem.MolFromSmiles(smiles)
    assert READER.graph(mol) is None
    assert READER.packed(mol) is None
    assert difference(READER, smiles) is None


def test_queries_molecules_without_atoms_and_without_rings_found_are_left_to_the_loops():
    for mol in (Chem.MolFromSmarts("[C,N]C"), Chem.Mol()):
        assert READER.graph(mol) is None
        assert READER.packed(mol) is None


def test_conformers_do_not_matter():
    mol = Chem.MolFromMolBlock(Chem.MolToMolBlock(Chem.MolFromSmiles("C[C@H](N)O")))
    assert mol.GetNumConformers() == 1
    assert same_graph(READER.graph(mol), featurize_loops(mol))


def test_fast_graph_is_read_only_and_pickled_as_any_other():
    graph = READER.graph(Chem.MolFromSmiles("F/C=C/[C@H](N)C"))
    copy = pickle.loads(pickle.dumps(graph))
    assert same_graph(copy, graph)
    for one in (graph, copy):
        assert all(not getattr(one, name).flags.writeable for name in FIELDS)


def test_packed_is_read_only():
    packed = READER.packed(Chem.MolFromSmiles("CCO"))
    assert all(not array.flags.writeable for array in packed)


def test_many_molecules_in_one_call():
    smiles = ["CCO", "C*", "C", "F/C=C/F", "[CH3:1]C", "c1ccccc1"]
    mols = [Chem.MolFromSmiles(one) for one in smiles]
    sizes, flat = READER.packed_all([READER.to_binary(mol) for mol in mols])
    assert sizes.tolist() == [[3, 4], [0, 0], [1, 0], [4, 6], [0, 0], [6, 12]]
    good = [pack(featurize_loops(mols[i])) for i in (0, 2, 3, 5)]
    for name in flat._fields:
        expected = np.concatenate([getattr(one, name) for one in good])
        np.testing.assert_array_equal(getattr(flat, name), expected)


def test_no_molecules_in_one_call():
    sizes, flat = READER.packed_all([])
    assert sizes.shape == (0, 2)
    assert [len(array) for array in flat] == [0, 0, 0, 0]


@pytest.fixture(scope="module")
def interpreted():
    """`binary` without compilation, where Python itself finds a read beyond the bytes."""
    spec = importlib.util.spec_from_file_location("interpreted_binary", rdkit_pickle.__file__)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", True)
        spec.loader.exec_module(module)
    assert not hasattr(module.read_graph, "py_func")
    return module


@st.composite
def spoilt(draw):
    """A pickle of which bytes are changed, cut off or put in; some good, some nothing like it."""
    data = bytearray(draw(st.sampled_from(BINARIES)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.one_of(st.integers(0, 60), st.integers(0, len(data))))
        byte = draw(st.sampled_from([0, 1, 2, 3, 4, 11, 12, 0x0B, 0x42, 0x6E, 0x80, 254, 255]))
        if at < len(data):
            data[at] = byte
    if draw(st.booleans()):
        data = data[: draw(st.integers(0, len(data)))]
    return bytes(data)


def guarded(shape, dtype):
    """An array in the middle of a larger one, all of whose bytes are known."""
    size = int(np.prod(shape))
    whole = np.empty(size + 64, dtype)
    whole.view(np.uint8)[:] = CANARY
    return whole, whole[32 : 32 + size].reshape(shape)


def untouched(whole):
    edges = np.concatenate([whole[:32], whole[-32:]]).view(np.uint8)
    return bool((edges == CANARY).all())


def graph_arrays(atoms, bonds):
    shapes = ((atoms,), (atoms,), (2, bonds), (bonds,), (bonds,))
    return [
        guarded(shape, np.uint16 if place == 2 else np.uint8) for place, shape in enumerate(shapes)
    ]


def check_graph(interpreted, data, room=None):
    """Read bytes compiled and interpreted; what is accepted must be a graph."""
    atoms, bonds = sizes_of(data, 0, len(data)) if room is None else (room, room)
    atoms, bonds = max(atoms, 0), max(bonds, 0)
    arrays = graph_arrays(atoms, bonds)
    good = read_graph(data, 0, len(data), *(inner for _, inner in arrays))
    assert all(untouched(whole) for whole, _ in arrays)
    if good and room is None:
        MolGraph(*(inner for _, inner in arrays))  # whose constructor checks every index
    # The same code, interpreted, would raise IndexError at a read outside the bytes.
    again = [inner.copy() for _, inner in graph_arrays(atoms, bonds)]
    assert interpreted.read_graph(data, 0, len(data), *again) == good
    return good


@settings(max_examples=400, deadline=None)
@given(spoilt(), st.sampled_from([None, 0, 7]))
def test_any_bytes_give_a_valid_graph_or_nothing(interpreted, data, room):
    check_graph(interpreted, data, room)


@pytest.mark.parametrize("number", range(len(BINARIES)))
def test_bytes_cut_off_anywhere(interpreted, number):
    whole = BINARIES[number]
    step = 1 if len(whole) < 500 else 61
    good = [check_graph(interpreted, whole[:cut]) for cut in range(0, len(whole), step)]
    assert not good[0]
    assert good == sorted(good)  # complete from where the bonds end


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("byte", [0, 1, 2, 5, 13, 0x08, 0x6E, 0x7F, 0xFF])
def test_any_byte_replaced(interpreted, number, byte):
    whole = BINARIES[number]
    for at in range(len(whole)):
        check_graph(interpreted, whole[:at] + bytes([byte]) + whole[at + 1 :])
        # Cut behind the molecule's last bond, so that longer atoms and bonds reach the end.
        check_graph(interpreted, whole[:at] + bytes([byte]) + whole[at + 1 : -20])


@pytest.mark.parametrize("short", range(4))
def test_arrays_too_small_are_not_written(short):
    data = BINARIES[0]
    atoms, bonds = sizes_of(data, 0, len(data))
    shapes = [(atoms, 2), (atoms,), (2 * bonds,), (2 * bonds,)]
    shapes[short] = (shapes[short][0] - 1, *shapes[short][1:])
    types = (np.uint8, np.int16, np.int16, np.uint8)
    arrays = [guarded(shape, dtype) for shape, dtype in zip(shapes, types, strict=True)]
    assert not pack_one(data, 0, len(data), *(inner for _, inner in arrays))
    assert all(untouched(whole) for whole, _ in arrays)


@settings(max_examples=400, deadline=None)
@given(st.lists(spoilt(), max_size=4), st.integers(0, 3))
def test_any_bytes_packed_stay_inside_the_arrays(many, lacking):
    offsets = np.cumsum([0, *(len(data) for data in many)])
    room = [max(size, 0) for data in many for size in sizes_of(data, 0, len(data))]
    atoms, bonds = max(sum(room[::2]) - lacking, 0), max(2 * sum(room[1::2]) - lacking, 0)
    shapes = (((atoms, 2), np.uint8), (atoms, np.int16), (bonds, np.int16), (bonds, np.uint8))
    arrays = [guarded(shape, dtype) for shape, dtype in shapes]
    sizes = np.full((len(many), 2), 99)
    got = pack_many(b"".join(many), offsets, sizes, *(inner for _, inner in arrays))
    assert all(untouched(whole) for whole, _ in arrays)
    assert got == tuple(sizes.sum(axis=0))
    at = bond = 0
    for v, e in sizes.tolist():
        _, degree, source, code = (inner for _, inner in arrays)
        assert degree[at : at + v].sum() == e
        assert ((source[bond : bond + e] >= 0) & (source[bond : bond + e] < v)).all()
        assert (code[bond : bond + e] < 12).all()
        at, bond = at + v, bond + e


@pytest.mark.parametrize(("begin", "end"), [(-1, 100), (0, 10_000), (50, 40), (1 << 40, 1 << 41)])
def test_bounds_outside_the_bytes_are_refused(begin, end):
    assert sizes_of(BINARIES[0], begin, end) == (-1, -1)
    arrays = [np.empty(0, np.uint8).reshape(0, 2), *(np.empty(0, t) for t in "hhB")]
    assert not pack_one(BINARIES[0], begin, end, *arrays)


@pytest.mark.parametrize(("at", "byte"), [(0, 0), (8, 15), (8, 17), (28, 0xC0), (29, 2)])
def test_another_format_is_not_understood(at, byte):
    data = bytearray(BINARIES[0])
    data[at] = byte
    assert sizes_of(bytes(data), 0, len(data)) == (-1, -1)
