"""One molecule, one key; and the graph that belongs to the key."""

import csv
import gzip
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem.rdDepictor import Compute2DCoords

from moltc_vllm.chem import (
    MoleculeError,
    MoleculeLimits,
    canonical_key,
    featurize,
    graph_of,
    molblock_to_smiles,
    molecule,
    parse_smiles,
)
from tests.paths import data_dir

VANCOMYCIN = (
    "CN[C@H](CC(C)C)C(=O)N[C@@H]1C(=O)N[C@@H](CC(N)=O)C(=O)N[C@H]2C(=O)N[C@H]3C(=O)N[C@H](C(=O)"
    "N[C@@H](C(=O)O)c4cc(O)cc(O)c4-c4cc3ccc4O)[C@H](O)c3ccc(c(Cl)c3)Oc3cc2cc(c3O)Oc2ccc(cc2Cl)"
    "[C@H]1O"
)
PEPTIDE = "C[C@H](N)C(=O)N[C@@H](Cc1c[nH]c2ccccc12)C(=O)N[C@@H](CCSC)C(=O)N1CCC[C@H]1C(=O)O"
MOLECULES = (
    "O",
    "CC(=O)Oc1ccccc1C(=O)O",
    "F/C=C\\C=C\\Cl",
    "CC(=O)[O-].[NH3+]CCO.[Na+].[Cl-]",
    "[2H]C([2H])([2H])S(=O)C([2H])([2H])[13CH3]",
    "C1CCCCCCCCCCCCCCC(=O)CCC1",
    PEPTIDE,
    VANCOMYCIN,
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(MOLECULES), st.integers(0, 2**31 - 1))
def test_every_way_of_writing_a_molecule_has_one_key(smiles, seed):
    mol = Chem.MolFromSmiles(smiles)
    written = Chem.MolToRandomSmilesVect(mol, 1, randomSeed=seed)[0]
    assert canonical_key(written) == canonical_key(smiles)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (" OCC\n", "CCO"),
        ("[CH3:1][CH2:2][OH:3]", "CCO"),
        ("[CH3:1][C@H](Cl)[CH3:2]", "CC(C)Cl"),  # a centre only as long as the labels count
        ("[H]O[H]", "O"),
        ("[H][H]", "[H][H]"),
        ("C1=CC=CC=C1", "c1ccccc1"),
    ],
)
def test_key(text, key):
    assert canonical_key(text) == key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"),
        ("F/C=C/F", "F/C=C\\F"),
        ("CCO", "[2H]CCO"),
        ("CC(=O)O", "CC(=O)[O-]"),
        ("CC(=O)[O-]", "CC(=O)[O-].[Na+]"),
    ],
)
def test_different_molecules_have_different_keys(one, other):
    assert canonical_key(one) != canonical_key(other)


def test_graph_is_the_canonical_molecules_not_the_written_ones():
    written, key = "OC(=O)[C@@H](N)C", "C[C@H](N)C(=O)O"
    assert canonical_key(written) == key
    for graph in (graph_of(canonical_key(written)), featurize(parse_smiles(key))):
        assert graph.atomic_number.tolist() == [5, 5, 6, 5, 7, 7]
        np.testing.assert_array_equal(graph.chirality, graph_of(key).chirality)
    assert graph_of(canonical_key(written)) is graph_of(key)


@pytest.mark.parametrize("text", ["C*", "[Re]$[Re]", "CC.[NH3]->[Pt]"])
def test_what_cannot_be_encoded_gets_no_key(text):
    with pytest.raises(MoleculeError) as caught:
        canonical_key(text)
    assert (caught.value.molecule, caught.value.kind) == (text, "unsupported")


def test_an_error_counts_the_atoms_the_user_wrote():
    with pytest.raises(MoleculeError, match=r"atom 3 \(\*\)"):
        canonical_key("CCC*")
    with pytest.raises(MoleculeError, match=r"atom 0 \(\*\)"):
        canonical_key("*CCC")


def test_limits_are_part_of_what_is_cached():
    assert canonical_key("CCCCO") == "CCCCO"
    with pytest.raises(MoleculeError, match="too_many_atoms"):
        canonical_key("CCCCO", MoleculeLimits(max_atoms=4))
    with pytest.raises(MoleculeError, match="too_many_atoms"):
        canonical_key("CCCCO", MoleculeLimits(max_atoms=4))


def test_key_is_within_the_character_limit_too():
    assert canonical_key("[Na]Cl") == "[Na][Cl]"
    with pytest.raises(MoleculeError, match="8 characters in canonical form, at most 6"):
        canonical_key("[Na]Cl", MoleculeLimits(max_characters=6))


def test_key_of_texts_that_turn_into_one_another_is_the_least(monkeypatch):
    follows = {"c": "b", "b": "d", "d": "b", "s": "s"}
    monkeypatch.setattr(molecule, "_canonicalise", lambda text: (follows[text], None))
    assert [molecule._fixed_point(text) for text in "cbds"] == ["b", "b", "b", "s"]


def test_molblock_and_smiles_have_one_key():
    for smiles in MOLECULES:
        mol = Chem.MolFromSmiles(smiles)
        Compute2DCoords(mol)
        assert canonical_key(molblock_to_smiles(Chem.MolToMolBlock(mol))) == canonical_key(smiles)


def test_molblock_loses_atom_map_numbers():
    assert molblock_to_smiles(Chem.MolToMolBlock(Chem.MolFromSmiles("[CH3:1][OH:2]"))) == "CO"


def test_approved_drugs_are_encoded_and_their_keys_are_fixed_points():
    with gzip.open(data_dir() / "screen_approved_drugs.csv.gz", "rt") as lines:
        drugs = [row["smiles"] for row in csv.DictReader(lines)][::5]
    assert len(drugs) > 400
    for smiles in drugs:
        key = canonical_key(smiles)
        assert canonical_key(key) == key
        assert graph_of(key).num_atoms == Chem.MolFromSmiles(smiles).GetNumAtoms()


def test_threads_agree_on_keys_and_graphs():
    texts = [
        text
        for number, smiles in enumerate(MOLECULES)
        for text in Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(smiles), 10, randomSeed=number)
    ]
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(canonical_key, texts))
        sizes = list(pool.map(lambda key: graph_of(key).num_atoms, keys))
    assert len(set(keys)) == len(MOLECULES)
    assert sizes == [Chem.MolFromSmiles(text).GetNumAtoms() for text in texts]
