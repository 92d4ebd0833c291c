"""Packed molecules survive the way to the engine's process."""

import numpy as np
import pytest
import torch
from vllm.multimodal.processing import BaseMultiModalProcessor, ProcessorInputs, TimingContext
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from moltc_vllm.chem import canonical_key, packed_of
from moltc_vllm.plugin.molecules import MODALITY
from moltc_vllm.plugin.wire import receive, send
from tests.molecules import DRUGS


@pytest.mark.parametrize("smiles", ["O", "CCO", "[Na+].[Cl-]", "F/C=C/F", DRUGS["warfarin"]])
def test_a_molecule_arrives_as_it_was_sent(smiles):
    key = canonical_key(smiles)
    row = send(key, 3, packed_of(key))
    (arrived,) = MsgpackDecoder(list[torch.Tensor]).decode(MsgpackEncoder().encode([row]))
    # Also from a batch in which it begins at an odd address.
    for one in (arrived, torch.cat([torch.zeros(1, dtype=torch.uint8), row])[1:]):
        molecule = receive(one)
        assert molecule.projector == 3
        for got, expected in zip(molecule.graph(), packed_of(key), strict=True):
            assert got.dtype == expected.dtype
            assert np.array_equal(got, expected)


def test_names_in_the_worker_are_the_molecules():
    keys = [canonical_key(one) for one in ("CCO", "O", "c1ccccc1", "CCO")]
    rows = [send(key, number, packed_of(key)) for number, key in enumerate(keys)]
    names = [receive(row).identity for row in rows]
    assert names[0] == names[3]
    assert len(set(names)) == 3


@pytest.fixture(scope="module")
def whole(offline, tiny_roles):
    """A processor as the engine has it."""
    return offline(tiny_roles).llm_engine.renderer.get_mm_processor()


def asked(whole, smiles, **more):
    items = whole.info.parse_mm_data({MODALITY: smiles})
    mol = whole.info.get_hf_config().molecule_token_id
    prompt = [7, *[token for _ in smiles for token in (mol, 9)], 11]
    return ProcessorInputs(prompt, items, **more)


def flat(processed):
    """All that the engine is given, tensors as lists."""
    items = [
        {name: (element.data.dtype, element.data.tolist()) for name, element in one.items()}
        for one in processed["mm_kwargs"][MODALITY]
    ]
    return {**processed, "mm_kwargs": items}


@pytest.mark.parametrize(
    "smiles", [["CCO", "c1ccccc1"], ["c1ccccc1", "CCO"], ["O", "O"], ["[Na+].[Cl-]"]], ids=str
)
def test_known_molecules_are_put_together_as_vllm_would(whole, smiles, monkeypatch):
    expected = BaseMultiModalProcessor.apply(whole, asked(whole, smiles), TimingContext())
    first = whole.apply(asked(whole, smiles), TimingContext())
    # In other prompts, too: each molecule stays known by itself, in its role.
    whole.apply(asked(whole, [*smiles[:-1], "CCCCO"]), TimingContext())
    monkeypatch.setattr(whole, "_call_hf_processor", None)
    again = whole.apply(asked(whole, smiles), TimingContext())
    assert flat(first) == flat(expected)
    assert flat(again) == flat(expected)
    assert again["prompt_token_ids"] is not first["prompt_token_ids"]


def test_names_that_the_caller_gives_are_kept(whole):
    whole.apply(asked(whole, ["CCO"]), TimingContext())
    named = whole.apply(asked(whole, ["CCO"], mm_uuid_items={MODALITY: ["mine"]}), TimingContext())
    assert named["mm_hashes"] == {MODALITY: ["mine"]}


def test_too_few_placeholders_are_refused_for_known_molecules_too(whole):
    wrong = asked(whole, ["CCO", "CCN"])
    whole.apply(wrong, TimingContext())
    wrong.prompt = wrong.prompt[3:]
    with pytest.raises(AssertionError, match="molecule"):  # vLLM's
        whole.apply(wrong, TimingContext())


def test_what_was_used_longest_ago_is_forgotten(whole, monkeypatch):
    monkeypatch.setattr("moltc_vllm.plugin.processor._KNOWN", 2)
    for smiles in ("CO", "CN", "CO", "CF"):
        whole.apply(asked(whole, [smiles]), TimingContext())
    assert [one.key for one in whole._known] == ["CO", "CF"]
