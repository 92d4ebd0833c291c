"""Features equal those of the published code; unsupported atoms and bonds are named."""

import json

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import ChiralType

from moltc_vllm.chem import MoleculeError, featurize, parse_smiles
from tests.paths import reference_dir


def graph(smiles):
    return featurize(parse_smiles(smiles))


def test_featurize_reproduces_reference_graphs():
    lines = (reference_dir() / "expected.jsonl").read_text().splitlines()
    pairs = [json.loads(line) for line in lines]
    assert len(pairs) == 40
    for pair in pairs:
        expected = np.load(reference_dir() / "arrays" / f"{pair['id']}.npz")
        for side in "12":
            got = graph(pair[f"smiles{side}"])
            edge_index, edge_attr = got.directed()
            nodes = np.stack([got.atomic_number, got.chirality], axis=1)
            np.testing.assert_array_equal(nodes, expected[f"x{side}"])
            np.testing.assert_array_equal(edge_index, expected[f"edge_index{side}"])
            np.testing.assert_array_equal(edge_attr, expected[f"edge_attr{side}"])


def test_atom_types_are_atomic_numbers_minus_one():
    assert graph("[H][H].C.[Og]").atomic_number.tolist() == [0, 0, 5, 117]


def test_single_atom_has_no_bonds():
    water = graph("O")
    assert (water.num_atoms, water.num_bonds) == (1, 0)
    edge_index, edge_attr = water.directed()
    assert (edge_index.shape, edge_attr.shape) == ((2, 0), (0, 2))


def test_salt_keeps_all_fragments():
    assert graph("CC(=O)[O-].[Na+]").atomic_number.tolist() == [5, 5, 7, 7, 10]


@pytest.mark.parametrize(
    ("smiles", "atoms"), [("[H]O[H]", 1), ("[2H]O[2H]", 3), ("[H][H]", 2), ("[H+]", 1)]
)
def test_hydrogens_are_atoms_where_rdkit_keeps_them(smiles, atoms):
    assert graph(smiles).num_atoms == atoms


def test_bond_types_are_indices_of_the_table():
    assert graph("CC=CC#N").bond_type.tolist() == [0, 1, 0, 2]
    assert graph("c1ccccc1").bond_type.tolist() == [3] * 6


def test_mirror_images_differ_in_chirality_only():
    left, right = graph("C[C@H](N)C(=O)O"), graph("C[C@@H](N)C(=O)O")
    assert sorted([left.chirality.tolist(), right.chirality.tolist()]) == [
        [0, 1, 0, 0, 0, 0],
        [0, 2, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(left.bond_index, right.bond_index)


def test_bond_directions_encode_double_bond_geometry():
    assert graph("F/C=C/F").bond_direction.tolist() == [1, 0, 1]
    assert graph("F/C=C\\F").bond_direction.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("smiles", "description"),
    [
        ("C*", "atom 1 (*)"),
        ("C[NH2]->[Pt]", "bond 1-2 is DATIVE"),
        ("[Re]$[Re]", "bond 0-1 is QUADRUPLE"),
        ("C~C", "bond 0-1 is UNSPECIFIED"),
        ("[Pt@SP1](F)(Cl)(Br)I", "atom 0 (Pt) has chirality CHI_SQUAREPLANAR"),
        ("[Co@OH1](F)(Cl)(Br)(I)(C)N", "chirality CHI_OCTAHEDRAL"),
    ],
)
def test_unsupported_atom_or_bond_is_named(smiles, description):
    with pytest.raises(MoleculeError) as caught:
        graph(smiles)
    assert caught.value.kind == "unsupported"
    assert description in caught.value.reason


def test_other_chirality_and_zero_order_bonds_are_unsupported():
    other = Chem.MolFromSmiles("CO")
    other.GetAtomWithIdx(0).SetChiralTag(ChiralType.CHI_OTHER)
    zero = Chem.MolFromSmiles("CO")
    zero.GetBondWithIdx(0).SetBondType(Chem.BondType.ZERO)
    for mol in (other, zero):
        with pytest.raises(MoleculeError, match="unsupported"):
            featurize(mol)


def test_molecule_without_atoms_is_empty():
    with pytest.raises(MoleculeError, match="empty"):
        featurize(Chem.Mol())
