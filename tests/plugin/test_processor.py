"""Packed molecules survive the way to the engine's process."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm.multimodal.processing import BaseMultiModalProcessor, ProcessorInputs, TimingContext
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from moltc_vllm.chem import canonical_key, packed_of
from moltc_vllm.plugin.modality.molecules import MODALITY, EncoderInput
from moltc_vllm.plugin.modality.processor_cache import Processed, ProcessorCache
from moltc_vllm.plugin.modality.serialization import pack_molecule, unpack_molecule
from tests.molecules import DRUGS


@pytest.mark.parametrize("smiles", ["O", "CCO", "[Na+].[Cl-]", "F/C=C/F", DRUGS["warfarin"]])
def test_a_molecule_arrives_as_it_was_sent(smiles):
    key = canonical_key(smiles)
    row = pack_molecule(key, 3, packed_of(key))
    (arrived,) = MsgpackDecoder(list[torch.Tensor]).decode(MsgpackEncoder().encode([row]))
    # Also from a batch in which it begins at an odd address.
    for one in (arrived, torch.cat([torch.zeros(1, dtype=torch.uint8), row])[1:]):
        molecule = unpack_molecule(one)
        assert molecule.projector == 3
        for got, expected in zip(molecule.graph(), packed_of(key), strict=True):
            assert got.dtype == expected.dtype
            assert np.array_equal(got, expected)


def test_names_in_the_worker_are_the_molecules():
    keys = [canonical_key(one) for one in ("CCO", "O", "c1ccccc1", "CCO")]
    rows = [pack_molecule(key, number, packed_of(key)) for number, key in enumerate(keys)]
    names = [unpack_molecule(row).identity for row in rows]
    assert names[0] == names[3]
    assert len(set(names)) == 3


@pytest.fixture(scope="module")
def llm(offline, tiny_roles):
    return offline(tiny_roles)


@pytest.fixture(scope="module")
def whole(llm):
    """A processor as the engine has it."""
    return llm.llm_engine.renderer.get_mm_processor()


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


def processed(size):
    item = {"molecule_graph": SimpleNamespace(data=torch.zeros(size, dtype=torch.uint8))}
    return Processed("name", item)


def test_what_was_used_longest_ago_is_forgotten():
    known = ProcessorCache(capacity_bytes=20_000)  # four of these
    a, *others = (EncoderInput(letter, 0) for letter in "ABCDEFG")
    for other in others:  # one drug, a library
        assert known.find([a, other]) is None
        known.keep([(a, processed(2_000)), (other, processed(2_000))])
    assert [one.key for one in (a, *others) if one in known] == ["A", "E", "F", "G"]
    known.clear()
    assert a not in known
    known.keep([(a, processed(19_000))])  # too large, but then nothing else is kept either
    assert a not in known


def test_names_are_of_the_molecules_even_without_any_cache(whole, llm, monkeypatch):
    renderer = llm.llm_engine.renderer
    assert renderer.model_config.multimodal_config.mm_processor_cache_gb == 0
    monkeypatch.setattr(renderer.config.cache_config, "enable_prefix_caching", False)
    prompt = {"prompt": "<mol> <mol> ?", "multi_modal_data": {MODALITY: ["CCO", "CCN"]}}
    first, second = (renderer.render_cmpl([dict(prompt)])[0]["mm_hashes"] for _ in range(2))
    assert first == second
    assert first == whole.apply(asked(whole, ["CCO", "CCN"]), TimingContext())["mm_hashes"]


def test_a_cleared_cache_is_empty(whole, llm):
    whole.apply(asked(whole, ["CCO"]), TimingContext())
    assert EncoderInput("CCO", 0) in whole.known
    llm.reset_mm_cache()
    assert EncoderInput("CCO", 0) not in whole.known
