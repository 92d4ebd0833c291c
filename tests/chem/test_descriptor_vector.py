"""Vectors of descriptors: values, robustness, and their way through packed molecules."""

import math

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

from moltc_vllm.chem import (
    DESCRIPTOR_NAMES,
    MoleculeError,
    canonical_key,
    featurize_library,
    packed_of,
)
from moltc_vllm.chem.descriptor_vector import NUM_DESCRIPTORS, compute_descriptor_vector
from moltc_vllm.chem.limits import DEFAULT_LIMITS
from moltc_vllm.chem.packed import concatenate
from moltc_vllm.chem.parse import parse_for_writing
from tests.molecules import DRUGS

UNUSUAL = [
    "[H][H]",
    "[H+]",
    "[Og]",
    "[U]",
    "F[P-](F)(F)(F)(F)F",
    "[Fe+2].C[Hg]C",
    "[O]",
    "[Na+].[Cl-]",
    "C" * 500,
    "C1CC2CCC1CC23CCCCC3",
]


def value(smiles, name):
    vector = compute_descriptor_vector(Chem.MolFromSmiles(smiles))
    number = float(vector[DESCRIPTOR_NAMES.index(name)])
    return math.copysign(math.expm1(abs(number)), number)


def test_names_are_unique_and_in_the_trained_order():
    assert len(set(DESCRIPTOR_NAMES)) == NUM_DESCRIPTORS == 99
    assert DESCRIPTOR_NAMES[:3] == (
        "heavy_atom_log_p",
        "heavy_atom_molar_refractivity",
        "num_atoms",
    )
    assert DESCRIPTOR_NAMES[19] == "slogp_vsa_1"
    assert DESCRIPTOR_NAMES[55] == "mqn_1"
    assert DESCRIPTOR_NAMES[-2:] == ("max_partial_charge", "min_partial_charge")


def test_values_are_those_of_rdkit():
    aspirin = DRUGS["aspirin"]
    mol = Chem.MolFromSmiles(aspirin)
    expected = {
        "exact_mass": 180.042,
        "tpsa": 63.6,
        "num_atoms": 21,
        "hydrogen_bond_donors": 1,
        "hydrogen_bond_acceptors": 3,
        "fraction_csp3": 1 / 9,
        "formal_charge": 0,
        "mqn_12": rdMolDescriptors.MQNs_(mol)[11],
        "peoe_vsa_1": rdMolDescriptors.PEOE_VSA_(mol)[0],
    }
    for name, number in expected.items():
        assert value(aspirin, name) == pytest.approx(number, rel=1e-4), name
    assert value("CC(=O)[O-]", "formal_charge") == pytest.approx(-1)
    assert value("CC(=O)[O-]", "min_partial_charge") == pytest.approx(-0.5498, abs=1e-3)
    assert value("C1CC12CC2", "spiro_atoms") == pytest.approx(1)
    assert value("C1CC2CCC1C2", "bridgehead_atoms") == pytest.approx(2)


@pytest.mark.parametrize("smiles", UNUSUAL)
def test_unusual_molecules_have_finite_vectors(smiles):
    vector = packed_of(canonical_key(smiles), descriptors=True).descriptors
    assert vector.shape == (NUM_DESCRIPTORS,)
    assert vector.dtype == np.float32
    assert np.isfinite(vector).all()
    assert np.abs(vector).max() < 12
    assert not vector.flags.writeable


def test_unknown_partial_charges_are_zero_in_any_atom_order():
    for smiles in ("[Fe]CCO", "OCC[Fe]"):
        assert value(smiles, "max_partial_charge") == value(smiles, "min_partial_charge") == 0


def test_failing_descriptor_is_zero_and_keeps_the_others(monkeypatch):
    expected = compute_descriptor_vector(Chem.MolFromSmiles("CCO"))

    def fail(mol):
        raise RuntimeError("Pre-condition Violation")

    monkeypatch.setattr("rdkit.Chem.rdPartialCharges.ComputeGasteigerCharges", fail)
    vector = compute_descriptor_vector(Chem.MolFromSmiles("CCO"))
    assert vector[-2:].tolist() == [0, 0]
    np.testing.assert_array_equal(vector[:-2], expected[:-2])


@pytest.mark.parametrize("smiles", [*DRUGS.values(), *UNUSUAL])
def test_partial_sanitization_gives_the_same_vector(smiles):
    partial = compute_descriptor_vector(parse_for_writing(smiles, DEFAULT_LIMITS))
    full = compute_descriptor_vector(Chem.MolFromSmiles(smiles))
    np.testing.assert_array_equal(partial, full)


def test_packed_of_adds_cached_descriptors_on_request():
    key = canonical_key(DRUGS["warfarin"])
    assert packed_of(key).descriptors is None
    first, second = packed_of(key, descriptors=True), packed_of(key, descriptors=True)
    assert first.descriptors is second.descriptors
    assert first.source is packed_of(key).source


@pytest.mark.parametrize("canonical", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_library_rows_contain_descriptors_on_request(canonical, workers):
    texts = ["OCC", "C1", "c1ccccc1", "[CH3:1]N", "C*", "[Na+].[Cl-]"]
    rows = list(
        featurize_library(
            texts, canonical=canonical, workers=workers, chunk_size=2, descriptors=True
        )
    )
    assert [isinstance(row, MoleculeError) for row in rows] == [
        False,
        True,
        False,
        False,
        True,
        False,
    ]
    for text, row in zip(texts, rows, strict=True):
        if isinstance(row, MoleculeError):
            continue
        key, packed = row
        expected = compute_descriptor_vector(Chem.MolFromSmiles(key))
        np.testing.assert_array_equal(packed.descriptors, expected)
        assert not packed.descriptors.flags.writeable
        copy = packed.copy()
        assert not any(
            np.shares_memory(a, b) for a, b in zip(copy.arrays(), packed.arrays(), strict=True)
        )
        (without,) = featurize_library([text], canonical=canonical, workers=0)
        for a, b in zip(without[1].arrays(), packed.arrays()[:-1], strict=True):
            np.testing.assert_array_equal(a, b)


def test_concatenate_refuses_a_mixture():
    with pytest.raises(ValueError, match="some molecules of a batch have descriptors"):
        concatenate([packed_of("CO"), packed_of("CO", descriptors=True)])
