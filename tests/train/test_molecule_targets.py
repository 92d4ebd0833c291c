"""Calculated targets of molecules: values, cache, standardization and heads."""

import numpy as np
import pytest
import torch

from moltc_vllm.data import molecule_targets as targets_module
from moltc_vllm.data.molecule_targets import WIDTHS, compute_targets
from moltc_vllm.models import create_checkpoint
from moltc_vllm.models.checkpoint import load_model
from moltc_vllm.train.examples import MoleculeTable
from moltc_vllm.train.molecule_targets import MoleculeHeads, MoleculeTargets
from moltc_vllm.train.recipe import MoleculeSettings
from tests.molecules import DRUGS

SMILES = [*DRUGS.values()][:8]


def test_targets_are_those_of_each_molecule(tmp_path):
    for kind in ("descriptors", "fingerprint"):
        together = compute_targets(SMILES, kind, tmp_path)
        assert together.shape == (len(SMILES), WIDTHS[kind])
        alone = [compute_targets([smiles], kind, tmp_path / "alone")[0] for smiles in SMILES]
        assert np.array_equal(together, np.stack(alone))
        assert len(np.unique(together, axis=0)) == len(SMILES)


def test_fingerprint_counts_are_logarithms(tmp_path):
    (values,) = compute_targets(["CCCCCCCC"], "fingerprint", tmp_path)
    counts = np.expm1(values.astype(np.float64))
    assert np.allclose(counts, counts.round(), atol=0.02)
    assert round(counts.sum()) == 24 - 2  # end atoms have one environment fewer


def test_unreadable_molecules_have_no_targets(tmp_path):
    values = compute_targets(["CCO", "C1CC"], "descriptors", tmp_path)
    assert np.isfinite(values[0]).all()
    assert np.isnan(values[1]).all()


def test_interrupted_computation_keeps_its_files(tmp_path, monkeypatch):
    calls = []
    original = targets_module._compute_chunk

    def stop_at_third(job):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(job)
        return original(job)

    monkeypatch.setattr(targets_module, "_compute_chunk", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        compute_targets(SMILES, "descriptors", tmp_path)
    kept = {smiles for _, bucket in calls for smiles in bucket}
    assert 0 < len(kept) < len(SMILES)
    resumed = []
    monkeypatch.setattr(
        targets_module, "_compute_chunk", lambda job: (resumed.extend(job[1]), original(job))[1]
    )
    values = compute_targets(SMILES, "descriptors", tmp_path)
    assert set(resumed) == set(SMILES) - kept
    assert np.array_equal(values, compute_targets(SMILES, "descriptors", tmp_path / "other"))


def test_other_lists_share_files_of_molecules(tmp_path, monkeypatch):
    values = compute_targets(SMILES, "descriptors", tmp_path)

    def fail(job):
        raise AssertionError(f"computed again: {job}")

    monkeypatch.setattr(targets_module, "_compute_chunk", fail)
    subset = [SMILES[5], SMILES[2], SMILES[5]]
    assert np.array_equal(compute_targets(subset, "descriptors", tmp_path), values[[5, 2, 5]])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini") / "mini"
    create_checkpoint("mini", folder)
    return load_model(folder)


def make_targets(model, folder, **settings):
    table = MoleculeTable(model.config)
    table.add([*SMILES, "C1CC"], workers=0)
    return MoleculeTargets(
        MoleculeSettings(batch_size=6, **settings), table, [*SMILES, "C1CC"], folder, seed=1
    )


def test_batches_are_standardized_and_reproducible(model, tmp_path):
    targets = make_targets(model, tmp_path)
    assert len(targets) == len(SMILES)
    first = targets.batch(3, 0, 1, "cpu")
    again = targets.batch(3, 0, 1, "cpu")
    assert torch.equal(first.molecules.atoms, again.molecules.atoms)
    assert torch.equal(first.targets["descriptors"], again.targets["descriptors"])
    other = targets.batch(4, 0, 1, "cpu")
    assert not torch.equal(first.targets["fingerprint"], other.targets["fingerprint"])
    drawn = torch.cat(
        [targets.batch(step, 0, 1, "cpu").targets["descriptors"] for step in range(50)]
    )
    assert abs(float(drawn.mean())) < 0.1
    assert float(drawn.abs().max()) <= 6


def test_processes_divide_a_batch(model, tmp_path):
    targets = make_targets(model, tmp_path)
    whole = targets.batch(0, 0, 1, "cpu").targets["descriptors"]
    halves = [targets.batch(0, process, 2, "cpu").targets["descriptors"] for process in (0, 1)]
    assert torch.equal(whole[0::2], halves[0])
    assert torch.equal(whole[1::2], halves[1])


def test_heads_learn_and_ignore_missing_targets(model, tmp_path):
    targets = make_targets(model, tmp_path)
    torch.manual_seed(0)
    heads = MoleculeHeads(model.config, ("descriptors", "fingerprint"))
    batch = targets.batch(0, 0, 1, "cpu")
    batch.targets["descriptors"][0] = float("nan")
    optimizer = torch.optim.Adam([*heads.parameters(), *model.molecule_encoder.parameters()], 3e-3)
    losses = []
    for _ in range(30):
        loss = heads.loss(model.molecule_encoder, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.5 * losses[0]


def test_resident_molecules_are_on_the_device_of_the_call(model):
    table = MoleculeTable(model.config)
    table.add(SMILES, workers=0)
    on_cpu = table.resident("cpu")
    assert table.resident("meta").device.type == "meta"
    assert table.resident("cpu") is on_cpu
    assert on_cpu.device.type == "cpu"
    table.add(["CCO"], workers=0)
    assert len(table.resident("cpu")) == len(SMILES) + 1
