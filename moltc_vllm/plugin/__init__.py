"""vLLM plugin; no other package of `moltc_vllm` imports vLLM.

This module has no heavy imports, because vLLM imports it in every process.
"""

from __future__ import annotations

RENDERER_MODE = "moltc"
"""Value of ``--tokenizer-mode`` that selects `MoltcRenderer`."""

ARCHITECTURE = "MoltcForConditionalGeneration"
"""Value of ``architectures`` in a checkpoint's ``config.json``, and name of the model class."""


def register() -> None:
    """Register model, configuration, tokenizer and renderer (entry point ``vllm.general_plugins``).

    vLLM calls it in the API server, the engine core, the workers and the inspection subprocess,
    possibly several times in each.
    """
    from transformers import AutoConfig, AutoTokenizer
    from vllm import ModelRegistry
    from vllm.renderers.registry import RENDERER_REGISTRY
    from vllm.tokenizers.registry import TokenizerRegistry

    from moltc_vllm.models.config import MoltcConfig
    from moltc_vllm.models.tokenizer import MoltcTokenizer
    from moltc_vllm.plugin.compat import make_llvmlite_scannable

    make_llvmlite_scannable()
    AutoConfig.register(MoltcConfig.model_type, MoltcConfig, exist_ok=True)
    AutoTokenizer.register(MoltcConfig, fast_tokenizer_class=MoltcTokenizer, exist_ok=True)
    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(
            ARCHITECTURE, f"moltc_vllm.plugin.modality.model:{ARCHITECTURE}"
        )
    if RENDERER_MODE not in RENDERER_REGISTRY.renderers:
        TokenizerRegistry.register(RENDERER_MODE, "vllm.tokenizers.hf", "CachedHfTokenizer")
        RENDERER_REGISTRY.register(
            RENDERER_MODE, "moltc_vllm.plugin.server.renderer", "MoltcRenderer"
        )
