"""`PackedMolecule`: the bonds of every atom, in one order."""

import pytest

from moltc_vllm.chem import MoleculeError, canonical_key, graph_of, pack, packed_of, parse_smiles
from moltc_vllm.chem.fast.self_test import same_packed
from moltc_vllm.chem.featurize import featurize_packed
from moltc_vllm.chem.featurize_loops import featurize_loops


def plainly(smiles):
    return pack(featurize_loops(parse_smiles(smiles)))


def test_bonds_are_sorted_by_target_forth_before_back():
    packed = plainly("N1C=C1")  # bonds 0-1, 1-2, 2-0
    assert packed.atoms.tolist() == [[6, 0], [5, 0], [5, 0]]
    assert packed.degree.tolist() == [2, 2, 2]
    assert packed.source.tolist() == [2, 1, 0, 2, 1, 0]
    assert packed.bond_code.tolist() == [0, 0, 0, 3, 3, 0]


def test_code_is_three_times_type_plus_direction():
    assert plainly("F/C=C\\F").bond_code.tolist() == [1, 1, 3, 3, 2, 2]


def test_types_and_read_only():
    for packed in (plainly("CO"), packed_of(canonical_key("OC"))):
        assert [array.dtype.str for array in packed] == ["|u1", "<i2", "<i2", "|u1"]
        assert not any(array.flags.writeable for array in packed)


def test_one_atom():
    packed = packed_of("O")
    assert [array.shape for array in packed] == [(1, 2), (1,), (0,), (0,)]
    assert same_packed(packed, plainly("O"))


def test_packed_of_a_key_is_its_graph_packed_and_shared():
    key = canonical_key("OC(=O)[C@@H](N)C")
    assert same_packed(packed_of(key), pack(graph_of(key)))
    assert packed_of(key) is packed_of(key)


def test_the_loops_do_what_the_compiled_reader_does_not():
    assert same_packed(featurize_packed(parse_smiles("[CH3:1]O")), plainly("[CH3:1]O"))
    with pytest.raises(MoleculeError, match=r"atom 1 \(\*\)"):
        featurize_packed(parse_smiles("C*"))
    with pytest.raises(MoleculeError, match="syntax"):
        packed_of("C1")
