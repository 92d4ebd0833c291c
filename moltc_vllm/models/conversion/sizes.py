"""A configuration from shapes: nothing about a published model's sizes is assumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from moltc_vllm.models.config import GraphEncoderConfig, MoltcConfig, QFormerConfig
from moltc_vllm.models.conversion.encoder import PublishedEncoder
from moltc_vllm.models.conversion.files import read_json
from moltc_vllm.models.conversion.names import QUERIES
from moltc_vllm.models.weights import WeightsError, summary

HEAD_WIDTH = 64
"""Width of an attention head where no file gives their number, as in every published BERT."""

_LAYER_0, _CROSS_KEY = "Qformer.bert.encoder.layer.0", "crossattention.self.key.weight"


class BertSizes(NamedTuple):
    """A BERT ``config.json``, for what is not in the weights."""

    raw: Mapping[str, Any]
    path: Path


def read_bert_sizes(path: Path) -> BertSizes:
    """Read a BERT configuration.

    Args:
        path: ``config.json``, or the folder that has it.

    Raises:
        WeightsError: If there is none, or it is another model's.
    """
    if path.is_dir():
        path = path / "config.json"
    raw = read_json(path)
    if raw.get("model_type", "bert") != "bert":
        raise WeightsError(f"{path} is of a {raw['model_type']!r} model, expected 'bert'")
    return BertSizes(raw, path)


def graph_encoder_sizes(encoder: PublishedEncoder) -> GraphEncoderConfig:
    """Sizes of the graph encoder.

    Args:
        encoder: With all its weights.

    Raises:
        WeightsError: If a weight that tells a size has not as many dimensions.
    """
    table = _shape(encoder, "graph_encoder.x_embedding1.weight", 2)
    return GraphEncoderConfig(hidden_size=table[1], num_layers=encoder.layout.graph_layers)


def qformer_sizes(encoder: PublishedEncoder, bert: BertSizes | None) -> QFormerConfig:
    """Sizes of the Q-Former; the number of heads from a BERT configuration, if there is one.

    Args:
        encoder: With all its weights.
        bert: Must not contradict the weights.

    Raises:
        WeightsError: If the cross-attention is irregular, or something contradicts the shapes.
    """
    _, queries, width = _shape(encoder, QUERIES, 3)
    sizes: dict[str, Any] = {
        "num_queries": queries,
        "hidden_size": width,
        "num_layers": encoder.layout.qformer_layers,
        "intermediate_size": _shape(encoder, f"{_LAYER_0}.intermediate_query.dense.weight", 2)[0],
        "cross_attention_frequency": _frequency(encoder),
    }
    if bert is not None:
        return _with_heads(sizes, _shape(encoder, f"{_LAYER_0}.{_CROSS_KEY}", 2)[1], bert)
    if width % HEAD_WIDTH:
        raise WeightsError(
            f"{encoder.path}: the Q-Former's number of attention heads is in no file, and its "
            f"width {width} is not a multiple of {HEAD_WIDTH}; give --qformer-config (a BERT "
            "config.json)"
        )
    return QFormerConfig(**sizes, num_attention_heads=width // HEAD_WIDTH)


def contradictions(told: Mapping[str, Any], config: MoltcConfig) -> list[str]:
    """Where the settings of a training run are not what its weights are, a line each.

    Weights that are whole go before settings, which may be another run's. But names alone cannot
    tell a smaller model from one that has lost its last layers, so somebody should know.

    Args:
        told: The run's hyper-parameters.
        config: Sizes of the weights.
    """
    graph, qformer = config.graph_encoder_config, config.qformer_config
    found = {
        "gin_num_layers": graph.num_layers,
        "gin_hidden_dim": graph.hidden_size,
        "num_query_token": qformer.num_queries,
    }
    every, layers = qformer.cross_attention_frequency, qformer.num_layers
    lines = [
        f"hyper_parameters say {name} {told[name]}, the weights {value}"
        for name, value in found.items()
        if isinstance(told.get(name), int) and told[name] != value
    ]
    return lines + _other_layers("hyper_parameters say", told, every, layers)


def _with_heads(sizes: Mapping[str, Any], key_width: int, bert: BertSizes) -> QFormerConfig:
    """The sizes with what only the BERT configuration tells."""
    heads = bert.raw.get("num_attention_heads")
    width = sizes["hidden_size"]
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise WeightsError(f"{bert.path}: {heads!r} attention heads do not divide width {width}")
    lines = [
        f"it says {name} {bert.raw[name]!r}, the weights {value!r}"
        for name, value in (
            ("hidden_size", width),
            ("num_hidden_layers", sizes["num_layers"]),
            ("intermediate_size", sizes["intermediate_size"]),
            # LAVIS adds these two to BERT's.
            ("query_length", sizes["num_queries"]),
            ("encoder_width", key_width),
            # Not a size, but the only activation there is here.
            ("hidden_act", "gelu"),
        )
        if bert.raw.get(name, value) != value
    ]
    every = sizes["cross_attention_frequency"]
    lines += _other_layers("it says", bert.raw, every, sizes["num_layers"])
    if lines:
        raise WeightsError(summary(bert.path, lines), lines)
    optional = {
        ours: bert.raw[theirs]
        for theirs, ours in (
            ("layer_norm_eps", "layer_norm_eps"),
            ("hidden_dropout_prob", "dropout"),
        )
        if theirs in bert.raw
    }
    return QFormerConfig(**sizes, num_attention_heads=heads, **optional)


def _other_layers(who: str, raw: Mapping[str, Any], every: int, layers: int) -> list[str]:
    """A line, if the frequency somebody names puts cross-attention into other layers."""
    told = raw.get("cross_attention_freq")
    if not isinstance(told, int) or range(0, layers, max(told, 1)) == range(0, layers, every):
        return []
    return [f"{who} cross_attention_freq {told}, the weights {every}"]


def _frequency(encoder: PublishedEncoder) -> int:
    crossing, layers = encoder.layout.crossing, encoder.layout.qformer_layers
    every = crossing[1] if len(crossing) > 1 else layers
    if crossing != tuple(range(0, layers, every)):
        raise WeightsError(
            f"{encoder.path}: crossattention in layers {', '.join(map(str, crossing))} of {layers} "
            "is not every so many from the first on"
        )
    return every


def _shape(encoder: PublishedEncoder, key: str, dimensions: int) -> tuple[int, ...]:
    shape = tuple(encoder.weights[key].shape)
    if len(shape) != dimensions or 0 in shape:
        raise WeightsError(
            f"{encoder.path}: {encoder.prefix}{key} has shape {list(shape)}, "
            f"expected {dimensions} dimensions"
        )
    return shape
