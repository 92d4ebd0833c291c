"""The installed vLLM has the extension points that the plugin uses, with the same signatures."""

import inspect
from importlib.metadata import entry_points

import pytest


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_entry_points_are_installed_and_load():
    (general,) = (
        point for point in entry_points(group="vllm.general_plugins") if point.name == "moltc"
    )
    (endpoint,) = (
        point for point in entry_points(group="vllm.endpoint_plugins") if point.name == "moltc_http"
    )
    from vllm.plugins.endpoint_plugins.interface import EndpointPlugin

    general.load()()
    assert isinstance(endpoint.load()(), EndpointPlugin)


def test_register_is_idempotent():
    from vllm import ModelRegistry
    from vllm.renderers.registry import RENDERER_REGISTRY

    from moltc_vllm.plugin import ARCHITECTURE, RENDERER_MODE, register

    register()
    before = dict(RENDERER_REGISTRY.renderers)
    register()
    assert RENDERER_REGISTRY.renderers == before
    assert ARCHITECTURE in ModelRegistry.get_supported_archs()
    assert RENDERER_REGISTRY.load_renderer_cls(RENDERER_MODE).__name__ == "MoltcRenderer"


def test_model_supports_lora_and_multimodal():
    from vllm.model_executor.models.interfaces import supports_lora, supports_multimodal

    from moltc_vllm.plugin.modality.model import MoltcForConditionalGeneration as Model

    assert supports_multimodal(Model)
    assert supports_lora(Model)
    assert Model.get_placeholder_str("molecule", 0) == "<mol>"


def overridden_methods():
    from vllm.multimodal.parse import MultiModalDataParser, ProcessorBatchItems
    from vllm.multimodal.processing import (
        BaseDummyInputsBuilder,
        BaseMultiModalProcessor,
        BaseProcessingInfo,
    )
    from vllm.renderers.base import BaseRenderer
    from vllm.renderers.hf import HfRenderer

    return [
        (HfRenderer, "render_messages", ["self", "messages", "params"]),
        (HfRenderer, "render_messages_async", ["self", "messages", "params"]),
        (HfRenderer, "_process_tokens", ["self", "prompt", "skip_mm_cache"]),
        (HfRenderer, "_process_tokens_async", ["self", "prompt", "skip_mm_cache"]),
        (BaseRenderer, "render_prompt", ["self", "prompt"]),
        (BaseRenderer, "clear_mm_cache", ["self"]),
        (BaseRenderer, "_tokenize_prompt", ["self", "prompt", "params"]),
        (
            BaseRenderer,
            "_process_mm_uuids",
            ["self", "mm_data", "mm_data_items", "mm_uuid_items", "mm_req_id"],
        ),
        (BaseMultiModalProcessor, "apply", ["self", "inputs", "timing_ctx"]),
        (BaseRenderer, "_render_prompt_async", ["self", "prompt"]),
        (BaseMultiModalProcessor, "_call_hf_processor", ["self", "hf_data", "hf_kwargs"]),
        (
            BaseMultiModalProcessor,
            "_get_mm_fields_config",
            ["self", "hf_inputs", "hf_processor_mm_kwargs"],
        ),
        (
            BaseMultiModalProcessor,
            "_get_prompt_updates",
            ["self", "mm_items", "hf_processor_mm_kwargs", "out_mm_kwargs"],
        ),
        (BaseProcessingInfo, "get_supported_mm_limits", ["self"]),
        (BaseProcessingInfo, "get_mm_max_tokens_per_item", ["self", "seq_len", "mm_counts"]),
        (BaseProcessingInfo, "get_data_parser", ["self"]),
        (BaseDummyInputsBuilder, "get_dummy_text", ["self", "mm_counts"]),
        (
            BaseDummyInputsBuilder,
            "get_dummy_mm_data",
            ["self", "seq_len", "mm_counts", "mm_options"],
        ),
        (MultiModalDataParser, "_get_subparsers", ["self"]),
        (ProcessorBatchItems, "get_item_for_hash", ["self", "index"]),
        (ProcessorBatchItems, "get_processor_data", ["self"]),
    ]


def test_overridden_methods_have_expected_parameters():
    changed = {
        f"{owner.__name__}.{name}": parameters(getattr(owner, name))
        for owner, name, expected in overridden_methods()
        if parameters(getattr(owner, name)) != expected
    }
    assert changed == {}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("vllm.model_executor.models.utils:init_vllm_registered_model", ["hf_config", "prefix"]),
        ("vllm.sampling_params:StructuredOutputsParams", ["regex", "choice"]),
        (
            "vllm.v1.engine.llm_engine:LLMEngine.add_request",
            ["request_id", "prompt", "params", "lora_request"],
        ),
        ("vllm.lora.request:LoRARequest", ["lora_name", "lora_int_id", "lora_path"]),
        ("vllm.entrypoints.openai.models.serving:OpenAIServingModels.is_base_model", []),
        ("vllm.renderers.base:BaseRenderer.render_cmpl_async", ["prompts", "tok_params"]),
        ("vllm.renderers.base:BaseRenderer.render_cmpl", ["prompts"]),
        ("vllm.renderers.base:BaseRenderer._wants_offsets", ["prompt", "params"]),
        ("vllm.renderers.base:BaseRenderer._build_tokens_prompt", ["token_ids", "prompt"]),
        (
            "vllm.renderers.base:BaseRenderer._validate_mm_uuids",
            ["mm_data", "mm_data_items", "mm_uuid_items"],
        ),
        ("vllm.v1.engine.async_llm:AsyncLLM.generate", ["prompt", "request_id", "lora_request"]),
    ],
)
def test_called_functions_accept_our_arguments(path, names):
    import importlib

    module, _, attribute = path.partition(":")
    target = importlib.import_module(module)
    for part in attribute.split("."):
        target = getattr(target, part)
    assert set(names) <= set(parameters(target))


def test_processor_inputs_have_expected_fields():
    """A new field may have to be part of the cache key in `MoleculeProcessor.apply`."""
    import dataclasses

    from vllm.inputs import mm_input
    from vllm.multimodal.processing import ProcessorInputs

    assert [field.name for field in dataclasses.fields(ProcessorInputs)] == [
        "prompt",
        "mm_data_items",
        "mm_uuid_items",
        "hf_processor_mm_kwargs",
        "media_io_kwargs",
        "cache",
    ]
    assert parameters(mm_input)[:4] == [
        "prompt_token_ids",
        "mm_kwargs",
        "mm_hashes",
        "mm_placeholders",
    ]


def test_engine_defaults_are_engine_arguments():
    import dataclasses

    from vllm import EngineArgs

    from moltc_vllm.plugin.launcher import engine_defaults

    known = {field.name for field in dataclasses.fields(EngineArgs)}
    assert engine_defaults().keys() <= known


def test_vllm_can_scan_llvmlite_for_kernels():
    """An engine must start in a process that has loaded numba for featurization."""
    from llvmlite.binding import ffi
    from vllm.triton_utils.dispatcher import _rebind_kernels

    from moltc_vllm.chem.fast.dispatch import compiled_reader
    from moltc_vllm.plugin import register

    assert compiled_reader() is not None
    register()
    assert vars(ffi.lib) == {}
    _rebind_kernels([])  # scans every object of every module
    assert callable(ffi.lib.LLVMPY_GetDefaultTargetTriple)
