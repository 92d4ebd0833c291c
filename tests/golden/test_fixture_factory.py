"""Fixtures of other sizes, because the converter must infer all sizes from the files."""

import json
from dataclasses import replace

import pytest
import torch

from moltc_vllm.models.torch_engine import TorchEngine
from tests.golden import reference, reference_impl
from tests.golden.fixture import Fixture
from tests.golden.fixture_factory import Sizes, make_fixture
from tests.molecules import DRUGS
from tests.paths import reference_dir

SIZES = {
    "smaller": Sizes(),
    "other": Sizes(
        graph=40,
        graph_layers=4,
        qformer=48,
        qformer_layers=6,
        heads=3,
        frequency=3,
        queries=5,
        hidden=64,
        language_heads=2,  # heads of width 32; vLLM on CPU does not support width 16
        layers=3,
        biased=True,
        vocabulary=700,
        rank=8,
        alpha=32,
        targets=("q_proj", "v_proj"),
    ),
}
PAIRS = [
    (DRUGS["aspirin"], DRUGS["caffeine"]),
    ("O", "[Na+]"),
    ("C[C@H](N)C(=O)O", "F/C=C/F"),
    ("OCC" + "C" * 130, "N"),
    ("OCC", DRUGS["nicotine"]),
]


@pytest.mark.parametrize("name", SIZES)
def test_package_reproduces_fixtures_of_other_sizes(name, tmp_path):
    fixture = Fixture(make_fixture(tmp_path / "fixture", PAIRS, SIZES[name], seed=len(name)))
    engine = TorchEngine(fixture.convert(tmp_path / "converted"), batch_size=1)
    for comparison in reference.compare_prompts(engine, fixture.records):
        assert comparison.equal == len(PAIRS), str(comparison)
    assert max(reference.compare_molecules(engine, fixture.records).values()) < 1e-4
    step = reference.torch_first_step(engine, fixture.records)
    assert step.top_equal.equal == len(PAIRS), str(step)
    assert step.largest_difference < 1e-3
    for result in ("greedy", "beam5"):
        comparison = reference.torch_texts(engine, fixture.records, result)
        assert comparison.equal == len(PAIRS), str(comparison)
    expected = {tuple(record.raw["greedy"]["new_ids"]) for record in fixture.records}
    assert len(expected) > 1


def test_reference_impl_equals_published_outputs():
    folder = reference_dir()
    state = torch.load(folder / "stage2.ckpt", weights_only=True)["state_dict"]
    bert = json.loads((folder / "bert_pretrained" / "config.json").read_text())
    for record in Fixture(folder).records[::5]:
        for number, smiles in enumerate(record.written, start=1):
            for step, value in reference_impl.molecule_steps(
                state, smiles, bert["num_attention_heads"]
            ).items():
                expected = torch.from_numpy(record.arrays[f"{step}{number}"])
                assert (value - expected).abs().max() < 1e-4


@pytest.mark.slow
def test_report_of_generated_fixture(tmp_path, capsys):
    sizes = replace(SIZES["other"], queries=8)
    folder = make_fixture(tmp_path / "fixture", PAIRS, sizes, seed=5)
    figures = reference.report(folder, tmp_path / "work")
    assert reference.parity_holds(figures)
    assert figures["pairs"] == len(PAIRS)
    assert "vLLM, beam5: 5 of 5 equal" in capsys.readouterr().out
