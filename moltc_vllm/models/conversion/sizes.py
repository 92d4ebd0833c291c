"""Configuration of a molecule encoder, inferred from the shapes of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from moltc_vllm.models.config import GraphEncoderConfig, MoltcConfig, QFormerConfig
from moltc_vllm.models.conversion.encoder import PublishedEncoder
from moltc_vllm.models.conversion.files import read_json
from moltc_vllm.models.conversion.weight_names import QUERIES
from moltc_vllm.models.weights import WeightsError, summarize_mismatches

HEAD_WIDTH = 64
"""Assumed width of an attention head if no file gives the number of heads; BERT's width."""

_LAYER_0, _CROSS_KEY = "Qformer.bert.encoder.layer.0", "crossattention.self.key.weight"


class BertConfigFile(NamedTuple):
    """BERT ``config.json`` of the Q-Former, for sizes that the weights do not determine.

    Attributes:
        content: Content of the file.
        path: The file.
    """

    content: Mapping[str, Any]
    path: Path


def read_bert_config(path: Path) -> BertConfigFile:
    """Read a BERT configuration.

    Args:
        path: A ``config.json`` or its folder.

    Raises:
        WeightsError: If the file is missing or belongs to another kind of model.
    """
    if path.is_dir():
        path = path / "config.json"
    content = read_json(path)
    if content.get("model_type", "bert") != "bert":
        raise WeightsError(f"{path} has model_type {content['model_type']!r}, expected 'bert'")
    return BertConfigFile(content, path)


def graph_encoder_config(encoder: PublishedEncoder) -> GraphEncoderConfig:
    """Infer the configuration of the graph encoder.

    Args:
        encoder: Encoder with all its weights.

    Raises:
        WeightsError: If a weight has an unexpected number of dimensions.
    """
    table = _shape(encoder, "graph_encoder.x_embedding1.weight", 2)
    return GraphEncoderConfig(hidden_size=table[1], num_layers=encoder.layout.graph_layers)


def qformer_config(encoder: PublishedEncoder, bert: BertConfigFile | None) -> QFormerConfig:
    """Infer the configuration of the Q-Former.

    Args:
        encoder: Encoder with all its weights.
        bert: BERT configuration, which must agree with the weights; it provides the number of
            attention heads. Default: heads of width 64.

    Raises:
        WeightsError: If the layers with cross-attention are not evenly spaced, or a size
            contradicts the shapes.
    """
    _, queries, width = _shape(encoder, QUERIES, 3)
    sizes: dict[str, Any] = {
        "num_queries": queries,
        "hidden_size": width,
        "num_layers": encoder.layout.qformer_layers,
        "intermediate_size": _shape(encoder, f"{_LAYER_0}.intermediate_query.dense.weight", 2)[0],
        "cross_attention_frequency": _cross_attention_frequency(encoder),
    }
    if bert is not None:
        key_width = _shape(encoder, f"{_LAYER_0}.{_CROSS_KEY}", 2)[1]
        return _config_with_bert(sizes, key_width, bert)
    if width % HEAD_WIDTH:
        raise WeightsError(
            f"{encoder.path}: no file gives the number of the Q-Former's attention heads, and its "
            f"width {width} is not a multiple of {HEAD_WIDTH}; give --qformer-config (a BERT "
            "config.json)"
        )
    return QFormerConfig(**sizes, num_attention_heads=width // HEAD_WIDTH)


def hyper_parameter_conflicts(
    hyper_parameters: Mapping[str, Any], config: MoltcConfig
) -> list[str]:
    """Describe every hyper-parameter of a training run that contradicts the weights.

    The shapes of the weights take precedence, because the settings may belong to a different run.
    But names alone cannot distinguish a smaller model from a file that lacks its last layers, so
    the user should see the difference.

    Args:
        hyper_parameters: Hyper-parameters of the training run.
        config: Configuration inferred from the weights.

    Returns:
        One line for each conflict.
    """
    graph, qformer = config.graph_encoder_config, config.qformer_config
    inferred = {
        "gin_num_layers": graph.num_layers,
        "gin_hidden_dim": graph.hidden_size,
        "num_query_token": qformer.num_queries,
    }
    lines = [
        f"hyper_parameters say {name} {hyper_parameters[name]}, the weights {size}"
        for name, size in inferred.items()
        if isinstance(hyper_parameters.get(name), int) and hyper_parameters[name] != size
    ]
    return lines + _cross_attention_conflicts(
        "hyper_parameters say",
        hyper_parameters,
        qformer.cross_attention_frequency,
        qformer.num_layers,
    )


def _config_with_bert(
    sizes: Mapping[str, Any], key_width: int, bert: BertConfigFile
) -> QFormerConfig:
    """Add the settings of a BERT configuration to sizes that were inferred from weights."""
    heads = bert.content.get("num_attention_heads")
    width = sizes["hidden_size"]
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise WeightsError(f"{bert.path}: {heads!r} attention heads do not divide width {width}")
    lines = [
        f"it says {name} {bert.content[name]!r}, the weights {value!r}"
        for name, value in (
            ("hidden_size", width),
            ("num_hidden_layers", sizes["num_layers"]),
            ("intermediate_size", sizes["intermediate_size"]),
            # LAVIS adds these two to BERT's settings.
            ("query_length", sizes["num_queries"]),
            ("encoder_width", key_width),
            # The only activation that this package implements.
            ("hidden_act", "gelu"),
        )
        if bert.content.get(name, value) != value
    ]
    lines += _cross_attention_conflicts(
        "it says", bert.content, sizes["cross_attention_frequency"], sizes["num_layers"]
    )
    if lines:
        raise WeightsError(summarize_mismatches(bert.path, lines), lines)
    optional = {
        own: bert.content[published]
        for published, own in (
            ("layer_norm_eps", "layer_norm_eps"),
            ("hidden_dropout_prob", "dropout"),
        )
        if published in bert.content
    }
    return QFormerConfig(**sizes, num_attention_heads=heads, **optional)


def _cross_attention_conflicts(
    source: str, settings: Mapping[str, Any], frequency: int, layers: int
) -> list[str]:
    """Return a line if settings place cross-attention in other layers than the weights do."""
    setting = settings.get("cross_attention_freq")
    if not isinstance(setting, int):
        return []
    if range(0, layers, max(setting, 1)) == range(0, layers, frequency):
        return []
    return [f"{source} cross_attention_freq {setting}, the weights {frequency}"]


def _cross_attention_frequency(encoder: PublishedEncoder) -> int:
    indices, layers = encoder.layout.cross_attention_layers, encoder.layout.qformer_layers
    frequency = indices[1] if len(indices) > 1 else layers
    if indices != tuple(range(0, layers, frequency)):
        raise WeightsError(
            f"{encoder.path}: crossattention in layers {', '.join(map(str, indices))} of {layers} "
            "is not evenly spaced from layer 0"
        )
    return frequency


def _shape(encoder: PublishedEncoder, name: str, dimensions: int) -> tuple[int, ...]:
    shape = tuple(encoder.weights[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise WeightsError(
            f"{encoder.path}: {encoder.prefix}{name} has shape {list(shape)}, "
            f"expected {dimensions} dimensions"
        )
    return shape
