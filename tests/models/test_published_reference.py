"""A converted checkpoint reproduces the published model (shared fixture, float32)."""

import json

import numpy as np
import pytest
import torch

from moltc_vllm.chem import featurize_packed, parse_smiles
from moltc_vllm.models import BatchMolGraph, load_model
from tests.golden.fixture import Fixture
from tests.golden.reference import STEPS, convert_variant, differences, molecule_steps
from tests.paths import reference_dir

VARIANTS = ("no_lora", "lora_default", "opt_with_bias")


def records(name):
    with (reference_dir() / name).open() as lines:
        return [json.loads(line) for line in lines]


def molecules_of(record):
    # The published code featurizes the SMILES as written, not the canonical SMILES.
    return BatchMolGraph.from_molecules(
        [featurize_packed(parse_smiles(record[f"smiles{index}"])) for index in (1, 2)]
    )


@pytest.fixture(scope="module")
def model(published):
    """The fixture's checkpoint with ``lora_full`` merged."""
    return load_model(published)


def test_every_encoder_step_equals_published_model(model):
    rows = records("expected.jsonl")
    assert len(rows) == 40
    worst = dict.fromkeys(STEPS, 0.0)
    for row in rows:
        steps = molecule_steps(model, molecules_of(row), torch.zeros(2, dtype=torch.long))
        for name, difference in differences(
            steps, np.load(reference_dir() / row["arrays"])
        ).items():
            worst[name] = max(worst[name], difference)
    print(f"\nlargest differences: {worst}")
    assert max(worst.values()) < 1e-4


def check_first_logits(model, rows, count):
    """Compare the twenty most probable first tokens, their logits, and their order except ties."""
    assert len(rows) == count
    worst = 0.0
    for row in rows:
        with torch.no_grad():
            out = model(
                torch.tensor([row["input_ids"]]),
                molecules=molecules_of(row),
                projector=torch.zeros(2, dtype=torch.long),
            )
        logits = out.logits[0, -1]
        ids, expected = zip(*row["first_logits_top20"], strict=True)
        got = logits[list(ids)].tolist()
        worst = max(worst, *(abs(a - b) for a, b in zip(got, expected, strict=True)))
        assert set(logits.topk(20).indices.tolist()) == set(ids)
        for rank in range(19):
            if expected[rank] - expected[rank + 1] > 1e-3:
                assert got[rank] > got[rank + 1]
    print(f"\nlargest difference of a logit: {worst}")
    assert worst < 2e-3


def test_first_logits_equal_published_model(model):
    check_first_logits(model, records("expected.jsonl"), 40)


@pytest.mark.parametrize("variant", VARIANTS)
def test_first_logits_equal_published_variants(tmp_path, variant):
    convert_variant(Fixture(reference_dir()), variant, tmp_path / "c")
    rows = [r for r in records("expected_variants.jsonl") if r["variant"] == variant]
    check_first_logits(load_model(tmp_path / "c"), rows, 10)


def test_placeholder_logit_is_masked_unless_its_row_is_known(model, published_unpinned):
    """With a known embedding row the placeholder has a logit; without it is never generated."""
    row = records("expected.jsonl")[0]
    inputs = {
        "input_ids": torch.tensor([row["input_ids"]]),
        "molecules": molecules_of(row),
        "projector": torch.zeros(2, dtype=torch.long),
    }
    with torch.no_grad():
        pinned = model(**inputs).logits[0, -1]
        unpinned = load_model(published_unpinned)(**inputs).logits[0, -1]
    expected = torch.from_numpy(np.load(reference_dir() / row["arrays"])["first_logits"])
    torch.testing.assert_close(pinned, expected.float().flatten(), rtol=0, atol=2e-3)
    assert unpinned[-1] == -torch.inf
    torch.testing.assert_close(unpinned[:-1], pinned[:-1], rtol=0, atol=1e-6)
