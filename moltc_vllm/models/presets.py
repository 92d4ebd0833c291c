"""Presets of model sizes, and new checkpoint folders with untrained weights (``moltc init``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, OPTConfig, PretrainedConfig

from moltc_vllm.models.checkpoint import CheckpointError, write_checkpoint
from moltc_vllm.models.config import GraphEncoderConfig, MoltcConfig, QFormerConfig
from moltc_vllm.models.language_model import (
    language_model_weights,
    load_language_config,
    load_language_tokenizer,
    random_language_model_weights,
)
from moltc_vllm.models.molecule_encoder import MoleculeEncoder, initialize_molecule_weights
from moltc_vllm.models.phrase_tokens import PhraseVocabulary, phrase_vocabulary
from moltc_vllm.models.projector import ProjectorBank
from moltc_vllm.models.tokenizer import MoltcTokenizer, train_tokenizer
from moltc_vllm.tasks import TASKS, molecule_markup
from moltc_vllm.tasks.prompt_style import MOLTC_STYLE

_PUBLISHED_ENCODER: dict[str, Any] = {
    "graph": {"hidden_size": 300, "num_layers": 5},
    "qformer": {"hidden_size": 768, "num_layers": 12, "num_attention_heads": 12},
}


@dataclass(frozen=True, slots=True)
class Preset:
    """Sizes of a new model.

    Attributes:
        name: Key in `PRESETS`.
        summary: Purpose of the preset, one phrase.
        graph: Arguments of `GraphEncoderConfig`.
        qformer: Arguments of `QFormerConfig`.
        text: Arguments of the language model's configuration.
        vocab_size: Maximum size of a newly trained vocabulary, without ``<mol>``.
        text_type: Model type of the language model in transformers.
        molecule_std: Standard deviation of random weights in encoder and projectors.
        prompt_style: Name of the prompt style.
        has_phrase_tokens: Whether the tokenizer has one token for each phrase of the tasks.
        config: Further arguments of `MoltcConfig`.
    """

    name: str
    summary: str
    graph: dict[str, Any]
    qformer: dict[str, Any]
    text: dict[str, Any]
    vocab_size: int = 50_000
    text_type: str = "opt"
    molecule_std: float = 0.02
    prompt_style: str = MOLTC_STYLE.name
    has_phrase_tokens: bool = False
    config: dict[str, Any] = field(default_factory=dict)


def _galactica(
    name: str, layers: int, hidden: int, heads: int, **encoder: dict[str, Any]
) -> Preset:
    return Preset(
        name=f"galactica-{name}",
        summary=f"the published encoder on Galactica {name}",
        **(encoder or _PUBLISHED_ENCODER),
        text={
            "hidden_size": hidden,
            "word_embed_proj_dim": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "ffn_dim": 4 * hidden,
            "vocab_size": 50_001,  # Galactica's 50,000 tokens and the placeholder
        },
    )


_TINY_ENCODER: dict[str, Any] = {
    "graph": {"hidden_size": 64, "num_layers": 3},
    "qformer": {
        "hidden_size": 64,
        "num_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
    },
}

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="tiny",
            summary="for tests: starts in seconds, answers are random",
            **_TINY_ENCODER,
            text={
                "hidden_size": 128,
                "word_embed_proj_dim": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "ffn_dim": 256,
                # With smaller random weights all molecules would get the same answers.
                "init_std": 0.2,
            },
            vocab_size=1024,
            molecule_std=0.2,
        ),
        Preset(
            name="tiny-llama",
            summary="for tests: like tiny, with a Llama-style language model",
            **_TINY_ENCODER,
            text={
                "hidden_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "intermediate_size": 256,
                "max_position_embeddings": 2048,
                "initializer_range": 0.2,
            },
            vocab_size=1024,
            text_type="llama",
            molecule_std=0.2,
        ),
        Preset(
            name="mini",
            summary="a few million parameters, trainable on a laptop",
            graph={
                "hidden_size": 128,
                "num_layers": 3,
                "count_features": 64,
                "atom_features": "extended",
                "descriptors": True,
                "environment_rows": 24_576,
                "environment_radius": 3,
                "molecule_rows": 2048,
            },
            qformer={
                "num_queries": 2,
                "pooled_skip": True,
                "hidden_size": 192,
                "num_layers": 2,
                "num_attention_heads": 6,
                "intermediate_size": 768,
                "dropout": 0.0,
            },
            text={
                "hidden_size": 192,
                "word_embed_proj_dim": 192,
                "num_hidden_layers": 3,
                "num_attention_heads": 6,
                "ffn_dim": 768,
                "max_position_embeddings": 512,
                "dropout": 0.0,
            },
            vocab_size=1536,
            prompt_style="moltc-graph",
            has_phrase_tokens=True,
            config={"standardization": "cleanup", "symmetric_order": "canonical"},
        ),
        _galactica("125m", layers=12, hidden=768, heads=12),
        _galactica("1.3b", layers=24, hidden=2048, heads=32),
        _galactica("6.7b", layers=32, hidden=4096, heads=32),
        _galactica("30b", layers=48, hidden=7168, heads=56),
    )
}


def create_checkpoint(
    preset_name: str,
    folder: Path,
    *,
    language_model: Path | None = None,
    projector_sharing: str = "shared",
    seed: int = 0,
    phrases: PhraseVocabulary | None = None,
    tasks: Sequence[str] = tuple(TASKS),
    config_overrides: Mapping[str, Any] = MappingProxyType({}),
) -> MoltcConfig:
    """Write a new, untrained checkpoint folder.

    Args:
        preset_name: Key of `PRESETS`.
        folder: Folder to write; must not exist or be empty.
        language_model: Folder of a pretrained causal language model, whose weights, sizes and
            tokenizer are used; default: a random language model and a newly trained tokenizer.
        projector_sharing: Number of projectors: ``shared``, ``role`` or ``task_role``.
        seed: Seed of the random weights.
        phrases: Phrases that get one token each, for a preset whose tokenizer has phrases;
            default: those of all tasks.
        tasks: Names of the tasks that the checkpoint answers; default: all.
        config_overrides: Further arguments of `MoltcConfig`, which replace the preset's. Those of
            its parts, such as ``graph_encoder_config``, are mappings and replace single arguments.

    Raises:
        CheckpointError: If the preset is unknown or the folder is in use.
        LanguageModelError: If the language-model folder is incomplete, or the preset is too large
            for random weights and no folder was given.
    """
    preset = PRESETS.get(preset_name)
    if preset is None:
        raise CheckpointError(f"unknown preset {preset_name!r}; choose one of {', '.join(PRESETS)}")
    tokenizer = _tokenizer(preset, language_model, phrases)
    overrides = dict(config_overrides)
    graph, qformer, text = (
        dict(overrides.pop(name, {}))
        for name in ("graph_encoder_config", "qformer_config", "text_config")
    )
    config = MoltcConfig(
        **{"prompt_style": preset.prompt_style, **preset.config, **overrides},
        # Published weights use the row of single bonds for self loops; new ones do not.
        graph_encoder_config=GraphEncoderConfig(
            **{"self_loop_bond_type": 4, **preset.graph, **graph}
        ),
        qformer_config=QFormerConfig(**{**preset.qformer, **qformer}),
        text_config=_text_config(preset, tokenizer, language_model, text),
        projector_sharing=projector_sharing,  # type: ignore[arg-type]  # MoltcConfig checks it
        tasks=list(tasks),
        molecule_token=tokenizer.convert_ids_to_tokens(len(tokenizer) - 1),
        molecule_token_id=len(tokenizer) - 1,
    )
    torch.manual_seed(seed)
    weights = _weights(config, preset.molecule_std, language_model)
    card = {
        "preset": preset_name,
        "prompt_style": config.prompt_style,
        "seed": seed,
        "trained_on": [],
        "metrics": {},
        "language_model": language_model.name if language_model else None,
        "note": "untrained: its answers are noise",
    }
    write_checkpoint(folder, config, tokenizer, weights, card)
    return config


def _tokenizer(
    preset: Preset, language_model: Path | None, phrases: PhraseVocabulary | None
) -> MoltcTokenizer:
    if language_model is not None:
        return load_language_tokenizer(language_model)
    if not preset.has_phrase_tokens:
        phrases = None
    elif phrases is None:
        phrases = phrase_vocabulary(TASKS.values())
    return train_tokenizer(_corpus(), preset.vocab_size + 1, phrases)


def _corpus() -> Iterator[str]:
    """Yield the texts that a new tokenizer is trained on: questions and answers of all tasks."""
    for task in TASKS.values():
        for _ in range(4):
            yield from task.examples()
    yield molecule_markup("CC(=O)Oc1ccccc1C(=O)O")


def _text_config(
    preset: Preset,
    tokenizer: MoltcTokenizer,
    language_model: Path | None,
    overrides: Mapping[str, Any],
) -> PretrainedConfig:
    if language_model is not None:
        return load_language_config(language_model, len(tokenizer))
    vocabulary = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "vocab_size": len(tokenizer),
    }
    if preset.text_type != "opt":
        return AutoConfig.for_model(preset.text_type, **{**vocabulary, **preset.text, **overrides})
    # Galactica's variant of OPT: no biases, no layer-norm parameters, exact GELU.
    return OPTConfig(
        **{
            "max_position_embeddings": 2048,
            "init_std": 0.02,
            **vocabulary,
            **preset.text,
            **overrides,
        },
        activation_function="gelu",
        enable_bias=False,
        layer_norm_elementwise_affine=False,
        do_layer_norm_before=True,
        architectures=["OPTForCausalLM"],
    )


def _weights(
    config: MoltcConfig, molecule_std: float, language_model: Path | None
) -> Iterator[tuple[str, Tensor]]:
    for prefix, module in (
        ("molecule_encoder", MoleculeEncoder(config)),
        ("projectors", ProjectorBank(config)),
    ):
        initialize_molecule_weights(module, molecule_std)
        for key, tensor in module.state_dict().items():
            yield f"{prefix}.{key}", tensor
    language_weights = (
        language_model_weights(language_model, config.text_config)
        if language_model
        else random_language_model_weights(config.text_config)
    )
    for key, tensor in language_weights:
        yield f"language_model.{key}", tensor
