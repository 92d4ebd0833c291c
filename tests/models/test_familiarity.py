"""Index of the labelled training molecules."""

import time

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from moltc_vllm.chem import canonical_key
from moltc_vllm.chem.fingerprint import FingerprintTable, fingerprint, max_similarity
from moltc_vllm.models import familiarity
from moltc_vllm.models.errors import CheckpointError
from moltc_vllm.models.familiarity import (
    FAMILIARITY_FILE,
    FamiliarityIndex,
    least_familiar,
    load_familiarity,
)

DYE = "CCN(CC)c1ccc2cc(-c3nc4ccccc4o3)c(=O)oc2c1"  # coumarin with a benzoxazole
RELATED_DYE = "CN(C)c1ccc2cc(-c3nc4ccccc4o3)c(=O)oc2c1"  # with shorter alkyl chains
MOLECULES = {"absorption": [DYE, "CCO"], "solvation": ["OCC", "C[C@H](N)C(=O)O", "no smiles"]}


@pytest.fixture
def index():
    return FamiliarityIndex.build(MOLECULES)


def test_fingerprint_is_rdkits():
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    first, second = (generator.GetFingerprint(Chem.MolFromSmiles(s)) for s in (DYE, RELATED_DYE))
    table = FingerprintTable.of(fingerprint(RELATED_DYE)[None])
    similarity = max_similarity(table, fingerprint(DYE))
    assert similarity == pytest.approx(DataStructs.TanimotoSimilarity(first, second), abs=1e-12)
    assert np.unpackbits(fingerprint(DYE).view(np.uint8)).sum() == first.GetNumOnBits()


def test_search_finds_the_most_similar_of_many():
    generator = np.random.default_rng(0)
    words = generator.integers(0, 2**63, (300, 16), dtype=np.uint64)
    words &= generator.integers(0, 2**63, (300, 16), dtype=np.uint64)
    words[:3] = 0
    table = FingerprintTable.of(words[:250])
    for query in words[200:]:
        common = np.unpackbits((words[:250] & query).view(np.uint8), axis=1).sum(axis=1)
        union = np.unpackbits((words[:250] | query).view(np.uint8), axis=1).sum(axis=1)
        assert max_similarity(table, query) == pytest.approx((common / union).max())
    assert max_similarity(FingerprintTable.of(words[:0]), words[5]) == 0.0
    assert max_similarity(FingerprintTable.of(words[:1]), words[0]) == 1.0


def test_classes_depend_on_the_task(index):
    assert index.classify("absorption", canonical_key("OCC")) == "known"
    assert index.classify("absorption", canonical_key(RELATED_DYE)) == "similar"
    assert index.classify("solvation", canonical_key(RELATED_DYE)) == "unlike"
    assert index.classify("absorption", canonical_key("C[C@H](N)C(=O)O")) == "unlike"


def test_stereoisomer_is_similar_but_not_known(index):
    assert index.classify("solvation", canonical_key("C[C@H](N)C(=O)O")) == "known"
    assert index.classify("solvation", canonical_key("C[C@@H](N)C(=O)O")) == "similar"
    assert index.similarity("solvation", canonical_key("C[C@@H](N)C(=O)O")) == 1.0


def test_unreadable_molecules_are_left_out(index):
    assert len(index) == 3


def test_file_round_trips(index, tmp_path):
    index.save(tmp_path)
    loaded = load_familiarity(tmp_path)
    assert loaded.tasks == index.tasks
    assert loaded.similar == index.similar
    for task in index.tasks:
        for smiles in (DYE, RELATED_DYE, "CCO", "c1ccccc1"):
            key = canonical_key(smiles)
            assert loaded.classify(task, key) == index.classify(task, key)
            assert loaded.similarity(task, key) == index.similarity(task, key)


def test_folder_without_a_file_has_no_index(tmp_path):
    assert load_familiarity(tmp_path) is None


def test_damaged_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / FAMILIARITY_FILE).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=FAMILIARITY_FILE):
        load_familiarity(tmp_path)


def test_large_index_is_below_4_mb_and_recognizes_all_molecules(tmp_path, monkeypatch):
    monkeypatch.setattr(familiarity, "_MAX_FINGERPRINTS", 40)
    molecules = [f"{'C' * length}O" for length in range(1, 101)]
    index = FamiliarityIndex.build({"solvation": molecules})
    index.save(tmp_path)
    assert (tmp_path / FAMILIARITY_FILE).stat().st_size < 40 * 128 + 100 * 12 + 2_000
    loaded = load_familiarity(tmp_path)
    assert all(loaded.classify("solvation", smiles) == "known" for smiles in molecules)


def test_limit_of_fingerprints_keeps_the_file_below_4_mb():
    assert familiarity._MAX_FINGERPRINTS * (128 + 8 + 4) <= 4_000_000


def test_search_takes_less_than_a_millisecond_per_molecule():
    generator = np.random.default_rng(0)
    words = generator.integers(0, 2**63, (familiarity._MAX_FINGERPRINTS, 16), dtype=np.uint64)
    table = FingerprintTable.of(words)
    max_similarity(table, words[0])  # compiles
    started_at = time.process_time()
    for query in words[:20] ^ np.uint64(5):
        max_similarity(table, query)
    assert (time.process_time() - started_at) / 20 < 1e-3


def test_results_are_cached(index, monkeypatch):
    key = canonical_key(RELATED_DYE)
    expected = index.classify("absorption", key)
    monkeypatch.setattr(familiarity, "fingerprint", None)
    assert index.classify("absorption", key) == expected


def test_least_familiar_molecule_decides():
    assert least_familiar(["known", "similar"]) == "similar"
    assert least_familiar(["unlike", "known"]) == "unlike"
    assert least_familiar(["known"]) == "known"
