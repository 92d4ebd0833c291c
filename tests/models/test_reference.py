"""A converted checkpoint computes what the published model computes (shared fixture, float32)."""

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
    # As written, not canonical: the published code reads the SMILES it is given.
    return BatchMolGraph.from_molecules(
        [featurize_packed(parse_smiles(record[f"smiles{place}"])) for place in (1, 2)]
    )


@pytest.fixture(scope="module")
def model(published):
    """The fixture's checkpoint with ``lora_full`` merged."""
    return load_model(published)


def test_every_step_of_forty_pairs_is_the_published_one(model):
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
    """The twenty likeliest first tokens, in their order where it is not a tie, and their logits."""
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
        for place in range(19):
            if expected[place] - expected[place + 1] > 1e-3:
                assert got[place] > got[place + 1]
    print(f"\nlargest difference of a logit: {worst}")
    assert worst < 2e-3


def test_first_logits_of_forty_pairs(model):
    check_first_logits(model, records("expected.jsonl"), 40)


@pytest.mark.parametrize("variant", VARIANTS)
def test_first_logits_of_other_language_models_and_adapters(tmp_path, variant):
    convert_variant(Fixture(reference_dir()), variant, tmp_path / "c")
    rows = [r for r in records("expected_variants.jsonl") if r["variant"] == variant]
    check_first_logits(load_model(tmp_path / "c"), rows, 10)


def test_the_row_of_the_placeholder_takes_part_in_the_logits(model, published_unpinned):
    """With the row the placeholder is a token like any other; without, it is never an answer."""
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
