"""`PackedMolecule`: incoming bonds of every atom, in a defined order."""

import pytest

from moltc_vllm.chem import MoleculeError, canonical_key, graph_of, pack, packed_of, parse_smiles
from moltc_vllm.chem.fast.self_test import same_packed
from moltc_vllm.chem.featurize import featurize_packed
from moltc_vllm.chem.featurize_loops import featurize_loops


def packed_by_loops(smiles):
    return pack(featurize_loops(parse_smiles(smiles)))


def test_bonds_are_sorted_by_target_with_ending_bonds_first():
    packed = packed_by_loops("N1C=C1")  # bonds 0-1, 1-2, 2-0
    assert packed.atoms.tolist() == [[6, 0], [5, 0], [5, 0]]
    assert packed.degree.tolist() == [2, 2, 2]
    assert packed.source.tolist() == [2, 1, 0, 2, 1, 0]
    assert packed.bond_code.tolist() == [0, 0, 0, 3, 3, 0]


def test_bond_code_is_three_times_type_plus_direction():
    assert packed_by_loops("F/C=C\\F").bond_code.tolist() == [1, 1, 3, 3, 2, 2]


def test_arrays_are_small_and_read_only():
    for packed in (packed_by_loops("CO"), packed_of(canonical_key("OC"))):
        assert [array.dtype.str for array in packed.arrays()] == ["|u1", "<i2", "<i2", "|u1", "<u2"]
        assert not any(array.flags.writeable for array in packed.arrays())


def test_single_atom_has_no_bonds():
    packed = packed_of("O")
    assert [array.shape for array in packed.arrays()] == [(1, 2), (1,), (0,), (0,), (1,)]
    assert same_packed(packed, packed_by_loops("O"))


def test_packed_of_equals_packed_graph_of_and_is_cached():
    key = canonical_key("OC(=O)[C@@H](N)C")
    assert same_packed(packed_of(key), pack(graph_of(key)))
    assert packed_of(key) is packed_of(key)


def test_loops_handle_molecules_that_compiled_reader_does_not():
    assert same_packed(featurize_packed(parse_smiles("[CH3:1]O")), packed_by_loops("[CH3:1]O"))
    with pytest.raises(MoleculeError, match=r"atom 1 \(\*\)"):
        featurize_packed(parse_smiles("C*"))
    with pytest.raises(MoleculeError, match="syntax"):
        packed_of("C1")
