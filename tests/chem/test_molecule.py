"""Canonical keys: one per molecule; and the graph of a key."""

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
def test_canonical_key_is_the_same_for_all_spellings(smiles, seed):
    mol = Chem.MolFromSmiles(smiles)
    spelling = Chem.MolToRandomSmilesVect(mol, 1, randomSeed=seed)[0]
    assert canonical_key(spelling) == canonical_key(smiles)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (" OCC\n", "CCO"),
        ("[CH3:1][CH2:2][OH:3]", "CCO"),
        ("[CH3:1][C@H](Cl)[CH3:2]", "CC(C)Cl"),  # stereogenic only because of the atom map numbers
        ("[H]O[H]", "O"),
        ("[H][H]", "[H][H]"),
        ("C1=CC=CC=C1", "c1ccccc1"),
    ],
)
def test_canonical_key(text, key):
    assert canonical_key(text) == key


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"),
        ("F/C=C/F", "F/C=C\\F"),
        ("CCO", "[2H]CCO"),
        ("CC(=O)O", "CC(=O)[O-]"),
        ("CC(=O)[O-]", "CC(=O)[O-].[Na+]"),
    ],
)
def test_different_molecules_have_different_keys(first, second):
    assert canonical_key(first) != canonical_key(second)


def test_graph_of_key_has_canonical_atom_order():
    written, key = "OC(=O)[C@@H](N)C", "C[C@H](N)C(=O)O"
    assert canonical_key(written) == key
    for graph in (graph_of(canonical_key(written)), featurize(parse_smiles(key))):
        assert graph.atomic_number.tolist() == [5, 5, 6, 5, 7, 7]
        np.testing.assert_array_equal(graph.chirality, graph_of(key).chirality)
    assert graph_of(canonical_key(written)) is graph_of(key)


@pytest.mark.parametrize("text", ["C*", "[Re]$[Re]", "CC.[NH3]->[Pt]"])
def test_unsupported_molecule_has_no_key(text):
    with pytest.raises(MoleculeError) as caught:
        canonical_key(text)
    assert (caught.value.molecule, caught.value.kind) == (text, "unsupported")


def test_error_has_atom_indices_of_the_given_text():
    with pytest.raises(MoleculeError, match=r"atom 3 \(\*\)"):
        canonical_key("CCC*")
    with pytest.raises(MoleculeError, match=r"atom 0 \(\*\)"):
        canonical_key("*CCC")


def test_limits_are_part_of_the_cache_key():
    assert canonical_key("CCCCO") == "CCCCO"
    with pytest.raises(MoleculeError, match="too_many_atoms"):
        canonical_key("CCCCO", MoleculeLimits(max_atoms=4))
    with pytest.raises(MoleculeError, match="too_many_atoms"):
        canonical_key("CCCCO", MoleculeLimits(max_atoms=4))


def test_character_limit_applies_to_the_canonical_form():
    assert canonical_key("[Na]Cl") == "[Na][Cl]"
    with pytest.raises(MoleculeError, match="8 characters in canonical form, at most 6"):
        canonical_key("[Na]Cl", MoleculeLimits(max_characters=6))


def test_key_of_a_canonicalization_cycle_is_its_smallest_text(monkeypatch):
    successor = {"c": "b", "b": "d", "d": "b", "s": "s"}
    monkeypatch.setattr(molecule, "_canonicalize", lambda text: (successor[text], None))
    assert [molecule._canonical_fixed_point(text) for text in "cbds"] == ["b", "b", "b", "s"]


def test_molblock_and_smiles_have_the_same_key():
    for smiles in MOLECULES:
        mol = Chem.MolFromSmiles(smiles)
        Compute2DCoords(mol)
        assert canonical_key(molblock_to_smiles(Chem.MolToMolBlock(mol))) == canonical_key(smiles)


def test_molblock_to_smiles_drops_atom_map_numbers():
    assert molblock_to_smiles(Chem.MolToMolBlock(Chem.MolFromSmiles("[CH3:1][OH:2]"))) == "CO"


def test_keys_of_approved_drugs_are_fixed_points():
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
        for index, smiles in enumerate(MOLECULES)
        for text in Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(smiles), 10, randomSeed=index)
    ]
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(canonical_key, texts))
        sizes = list(pool.map(lambda key: graph_of(key).num_atoms, keys))
    assert len(set(keys)) == len(MOLECULES)
    assert sizes == [Chem.MolFromSmiles(text).GetNumAtoms() for text in texts]
