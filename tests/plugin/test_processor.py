"""The molecule processor: prompts from cached molecules equal those of vLLM's own processing."""

import pytest
from vllm.multimodal.processing import BaseMultiModalProcessor, ProcessorInputs, TimingContext

from moltc_vllm.plugin.modality.molecules import MODALITY, EncoderInput


@pytest.fixture(scope="module")
def llm(offline, tiny_roles):
    return offline(tiny_roles)


@pytest.fixture(scope="module")
def processor(llm):
    """Return the engine's processor."""
    return llm.llm_engine.renderer.get_mm_processor()


def inputs_of(processor, smiles, **fields):
    items = processor.info.parse_mm_data({MODALITY: smiles})
    placeholder = processor.info.get_hf_config().molecule_token_id
    prompt = [7, *[token for _ in smiles for token in (placeholder, 9)], 11]
    return ProcessorInputs(prompt, items, **fields)


def with_lists(processed):
    """Return the engine's input with tensors as lists, so that it can be compared."""
    items = [
        {name: (element.data.dtype, element.data.tolist()) for name, element in item.items()}
        for item in processed["mm_kwargs"][MODALITY]
    ]
    return {**processed, "mm_kwargs": items}


@pytest.mark.parametrize(
    "smiles", [["CCO", "c1ccccc1"], ["c1ccccc1", "CCO"], ["O", "O"], ["[Na+].[Cl-]"]], ids=str
)
def test_apply_assembles_cached_molecules_as_vllm_would(processor, smiles, monkeypatch):
    expected = BaseMultiModalProcessor.apply(
        processor, inputs_of(processor, smiles), TimingContext()
    )
    first = processor.apply(inputs_of(processor, smiles), TimingContext())
    # Molecules are cached one by one, so another prompt does not affect them.
    processor.apply(inputs_of(processor, [*smiles[:-1], "CCCCO"]), TimingContext())
    monkeypatch.setattr(processor, "_call_hf_processor", None)
    cached = processor.apply(inputs_of(processor, smiles), TimingContext())
    assert with_lists(first) == with_lists(expected)
    assert with_lists(cached) == with_lists(expected)
    assert cached["prompt_token_ids"] is not first["prompt_token_ids"]


def test_apply_keeps_uuids_of_the_caller(processor):
    processor.apply(inputs_of(processor, ["CCO"]), TimingContext())
    processed = processor.apply(
        inputs_of(processor, ["CCO"], mm_uuid_items={MODALITY: ["mine"]}), TimingContext()
    )
    assert processed["mm_hashes"] == {MODALITY: ["mine"]}


def test_apply_rejects_too_few_placeholders_for_cached_molecules(processor):
    inputs = inputs_of(processor, ["CCO", "CCN"])
    processor.apply(inputs, TimingContext())
    inputs.prompt = inputs.prompt[3:]
    with pytest.raises(AssertionError, match="molecule"):  # raised by vLLM
        processor.apply(inputs, TimingContext())


def test_mm_hashes_depend_on_molecules_without_any_cache(processor, llm, monkeypatch):
    renderer = llm.llm_engine.renderer
    assert renderer.model_config.multimodal_config.mm_processor_cache_gb == 0
    monkeypatch.setattr(renderer.config.cache_config, "enable_prefix_caching", False)
    prompt = {"prompt": "<mol> <mol> ?", "multi_modal_data": {MODALITY: ["CCO", "CCN"]}}
    first, second = (renderer.render_cmpl([dict(prompt)])[0]["mm_hashes"] for _ in range(2))
    assert first == second
    assert (
        first == processor.apply(inputs_of(processor, ["CCO", "CCN"]), TimingContext())["mm_hashes"]
    )


def test_reset_mm_cache_clears_processed_molecules(processor, llm):
    processor.apply(inputs_of(processor, ["CCO"]), TimingContext())
    assert EncoderInput("CCO", 0) in processor.processed_molecules
    llm.reset_mm_cache()
    assert EncoderInput("CCO", 0) not in processor.processed_molecules
