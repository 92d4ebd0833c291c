"""The compiled reader agrees with the Python loops and is safe with any bytes."""

import importlib.util
import pickle

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from moltc_vllm.chem import MolGraph, pack
from moltc_vllm.chem.atom_detail import DETAIL_CODES
from moltc_vllm.chem.fast import rdkit_pickle
from moltc_vllm.chem.fast.compiled import CompiledReader
from moltc_vllm.chem.fast.rdkit_pickle import read_graph, read_sizes
from moltc_vllm.chem.fast.rdkit_pickle_csr import pack_many, pack_one
from moltc_vllm.chem.fast.self_test import (
    FIELDS,
    MOLECULES,
    find_difference,
    same_graph,
)
from moltc_vllm.chem.featurize_loops import featurize_loops

READER = CompiledReader()
CANARY = 0xA5


def pickle_of(smiles):
    return READER.to_binary(Chem.MolFromSmiles(smiles))


PICKLES = [
    pickle_of(smiles)
    for smiles in (
        "C/C=C/[C@H](N)C1CC1",
        "CC(=O)[O-].[NH3+]CCO.[13CH4]",
        ".".join(
            ["[13CH2-]"] * 6
        ),  # long atoms without bonds, so that a truncated pickle passes the size check
        "c1ccccc1" * 3,
        "C" * 300,
        "C1CC1" * 60 + "C=C",
    )
]


@pytest.mark.parametrize("smiles", MOLECULES)
def test_compiled_reader_agrees_with_loops_on_self_test_molecules(smiles):
    assert find_difference(READER, smiles, must_support=True) is None


@pytest.mark.parametrize("atoms", [254, 255, 256, 257])
@pytest.mark.parametrize("rings", [0, 1, 2])
def test_compiled_reader_handles_one_and_four_byte_atom_indices(atoms, rings):
    smiles = "C1CC1" * rings + "C" * (atoms - 3 * rings)
    mol = Chem.MolFromSmiles(smiles)
    assert (mol.GetNumAtoms(), mol.GetNumBonds()) == (atoms, atoms - 1 + rings)
    assert find_difference(READER, smiles, must_support=True) is None


@pytest.mark.parametrize(
    "smiles",
    ["C*", "C[NH2]->[Pt]", "[Re]$[Re]", "C~C", "[CH3:1]C", "[Pt@SP1](F)(Cl)(Br)I", "[Zn]<-N"],
)
def test_compiled_reader_returns_none_for_unsupported_features(smiles):
    mol = Chem.MolFromSmiles(smiles)
    assert READER.featurize(mol) is None
    assert READER.featurize_packed(mol) is None
    assert find_difference(READER, smiles) is None


def test_compiled_reader_returns_none_for_queries_and_empty_molecules():
    for mol in (Chem.MolFromSmarts("[C,N]C"), Chem.Mol()):
        assert READER.featurize(mol) is None
        assert READER.featurize_packed(mol) is None


def test_compiled_reader_ignores_conformers():
    mol = Chem.MolFromMolBlock(Chem.MolToMolBlock(Chem.MolFromSmiles("C[C@H](N)O")))
    assert mol.GetNumConformers() == 1
    assert same_graph(READER.featurize(mol), featurize_loops(mol))


def test_compiled_graph_is_read_only_and_survives_pickling():
    graph = READER.featurize(Chem.MolFromSmiles("F/C=C/[C@H](N)C"))
    copy = pickle.loads(pickle.dumps(graph))
    assert same_graph(copy, graph)
    for checked in (graph, copy):
        assert all(not getattr(checked, name).flags.writeable for name in FIELDS)


def test_compiled_packed_graph_is_read_only():
    packed = READER.featurize_packed(Chem.MolFromSmiles("CCO"))
    assert all(not array.flags.writeable for array in packed.arrays())


def test_pack_pickles_reads_several_molecules():
    smiles = ["CCO", "C*", "C", "F/C=C/F", "[CH3:1]C", "c1ccccc1"]
    mols = [Chem.MolFromSmiles(text) for text in smiles]
    sizes, flat = READER.pack_pickles([READER.to_binary(mol) for mol in mols])
    assert sizes.tolist() == [[3, 4], [0, 0], [1, 0], [4, 6], [0, 0], [6, 12]]
    supported = [pack(featurize_loops(mols[i])) for i in (0, 2, 3, 5)]
    for name in flat._fields[:-1]:  # without descriptors
        expected = np.concatenate([getattr(packed, name) for packed in supported])
        np.testing.assert_array_equal(getattr(flat, name), expected)


def test_pack_pickles_accepts_empty_list():
    sizes, flat = READER.pack_pickles([])
    assert sizes.shape == (0, 2)
    assert [len(array) for array in flat.arrays()] == [0, 0, 0, 0, 0]


@pytest.fixture(scope="module")
def interpreted():
    """`rdkit_pickle` without compilation: Python raises IndexError at a read outside the buffer."""
    spec = importlib.util.spec_from_file_location("interpreted_rdkit_pickle", rdkit_pickle.__file__)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", True)
        spec.loader.exec_module(module)
    assert not hasattr(module.read_graph, "py_func")
    return module


@st.composite
def corrupt_pickles(draw):
    """Pickles with some bytes replaced or cut off; a few are still valid."""
    data = bytearray(draw(st.sampled_from(PICKLES)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.one_of(st.integers(0, 60), st.integers(0, len(data))))
        byte = draw(st.sampled_from([0, 1, 2, 3, 4, 11, 12, 0x0B, 0x42, 0x6E, 0x80, 254, 255]))
        if at < len(data):
            data[at] = byte
    if draw(st.booleans()):
        data = data[: draw(st.integers(0, len(data)))]
    return bytes(data)


def guarded_array(shape, dtype):
    """Allocate an array inside a larger one filled with canary bytes; return the outer and it."""
    size = int(np.prod(shape))
    whole = np.empty(size + 64, dtype)
    whole.view(np.uint8)[:] = CANARY
    return whole, whole[32 : 32 + size].reshape(shape)


def guards_intact(whole):
    edges = np.concatenate([whole[:32], whole[-32:]]).view(np.uint8)
    return bool((edges == CANARY).all())


def graph_arrays(atoms, bonds):
    shapes = ((atoms,), (atoms,), (2, bonds), (bonds,), (bonds,), (atoms,))
    return [
        guarded_array(shape, np.uint16 if index in (2, 5) else np.uint8)
        for index, shape in enumerate(shapes)
    ]


def check_graph(interpreted, data, capacity=None):
    """Read bytes with compiled and interpreted code; accepted bytes must give a valid graph.

    Returns:
        Whether the bytes were accepted.
    """
    atoms, bonds = read_sizes(data, 0, len(data)) if capacity is None else (capacity, capacity)
    atoms, bonds = max(atoms, 0), max(bonds, 0)
    arrays = graph_arrays(atoms, bonds)
    accepted = read_graph(data, 0, len(data), *(inner for _, inner in arrays))
    assert all(guards_intact(whole) for whole, _ in arrays)
    if accepted and capacity is None:
        MolGraph(*(inner for _, inner in arrays))  # The constructor checks every index.
    # The same code, interpreted, would raise IndexError at a read outside the buffer.
    fresh = [inner.copy() for _, inner in graph_arrays(atoms, bonds)]
    assert interpreted.read_graph(data, 0, len(data), *fresh) == accepted
    return accepted


@settings(max_examples=400, deadline=None)
@given(corrupt_pickles(), st.sampled_from([None, 0, 7]))
def test_read_graph_rejects_or_validates_any_bytes(interpreted, data, capacity):
    check_graph(interpreted, data, capacity)


@pytest.mark.parametrize("index", range(len(PICKLES)))
def test_read_graph_is_safe_with_truncated_pickles(interpreted, index):
    whole = PICKLES[index]
    step = 1 if len(whole) < 500 else 61
    accepted = [check_graph(interpreted, whole[:cut]) for cut in range(0, len(whole), step)]
    assert not accepted[0]
    assert accepted == sorted(accepted)  # Accepted only from the end of the rings on.


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("byte", [0, 1, 2, 5, 13, 0x08, 0x6E, 0x7F, 0xFF])
def test_read_graph_is_safe_with_any_byte_replaced(interpreted, index, byte):
    whole = PICKLES[index]
    for at in range(len(whole)):
        check_graph(interpreted, whole[:at] + bytes([byte]) + whole[at + 1 :])
        # Also cut off the end, so that atoms and bonds made longer would cross the buffer's end.
        check_graph(interpreted, whole[:at] + bytes([byte]) + whole[at + 1 : -20])


@pytest.mark.parametrize("short", range(5))
def test_pack_one_does_not_write_to_short_arrays(short):
    data = PICKLES[0]
    atoms, bonds = read_sizes(data, 0, len(data))
    shapes = [(atoms, 2), (atoms,), (2 * bonds,), (2 * bonds,), (atoms,)]
    shapes[short] = (shapes[short][0] - 1, *shapes[short][1:])
    types = (np.uint8, np.int16, np.int16, np.uint8, np.uint16)
    arrays = [guarded_array(shape, dtype) for shape, dtype in zip(shapes, types, strict=True)]
    assert not pack_one(data, 0, len(data), *(inner for _, inner in arrays))
    assert all(guards_intact(whole) for whole, _ in arrays)


@settings(max_examples=400, deadline=None)
@given(st.lists(corrupt_pickles(), max_size=4), st.integers(0, 3))
def test_pack_many_stays_inside_arrays_for_any_bytes(pickles, lacking):
    offsets = np.cumsum([0, *(len(data) for data in pickles)])
    stated = [max(size, 0) for data in pickles for size in read_sizes(data, 0, len(data))]
    atoms, bonds = max(sum(stated[::2]) - lacking, 0), max(2 * sum(stated[1::2]) - lacking, 0)
    shapes = (
        ((atoms, 2), np.uint8),
        (atoms, np.int16),
        (bonds, np.int16),
        (bonds, np.uint8),
        (atoms, np.uint16),
    )
    arrays = [guarded_array(shape, dtype) for shape, dtype in shapes]
    sizes = np.full((len(pickles), 2), 99)
    totals = pack_many(b"".join(pickles), offsets, sizes, *(inner for _, inner in arrays))
    assert all(guards_intact(whole) for whole, _ in arrays)
    assert totals == tuple(sizes.sum(axis=0))
    atom = bond = 0
    for v, e in sizes.tolist():
        _, degree, source, code, detail = (inner for _, inner in arrays)
        assert degree[atom : atom + v].sum() == e
        assert ((source[bond : bond + e] >= 0) & (source[bond : bond + e] < v)).all()
        assert (code[bond : bond + e] < 12).all()
        assert (detail[atom : atom + v] < DETAIL_CODES).all()
        atom, bond = atom + v, bond + e


@pytest.mark.parametrize(("begin", "end"), [(-1, 100), (0, 10_000), (50, 40), (1 << 40, 1 << 41)])
def test_read_sizes_rejects_bounds_outside_the_buffer(begin, end):
    assert read_sizes(PICKLES[0], begin, end) == (-1, -1)
    arrays = [np.empty(0, np.uint8).reshape(0, 2), *(np.empty(0, t) for t in "hhBH")]
    assert not pack_one(PICKLES[0], begin, end, *arrays)


@pytest.mark.parametrize(("at", "byte"), [(0, 0), (8, 15), (8, 17), (28, 0xC0), (29, 2)])
def test_read_sizes_rejects_other_formats(at, byte):
    data = bytearray(PICKLES[0])
    data[at] = byte
    assert read_sizes(bytes(data), 0, len(data)) == (-1, -1)
