"""Mapping from the weight names of published checkpoints to those of this package.

A Lightning file of stage 2 stores all weights under the prefix ``blip2opt.``. One of stage 1,
which is MolCA's pre-training without a language model, uses ``blip2qformer.``.

Source: checkpoints of the published MolTC and MolCA code; docs/concepts/published-model.md,
section "Checkpoint files".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

PREFIXES = {2: "blip2opt.", 1: "blip2qformer."}
"""Prefix of the weight names of each stage."""

GRAPH_ENCODER = "graph_encoder."
QUERIES = "query_tokens"  # [1, queries, width]; [queries, width] in this package
PROJECTION = "opt_proj."
LANGUAGE_MODEL = "opt_model."
_LORA = re.compile(r"opt_model\.base_model\.model\.(.+)\.lora_([AB])\.default\.weight")

_TABLE = ("weight",)
_LINEAR = _NORM = ("weight", "bias")
_BATCH_NORM = (*_NORM, "running_mean", "running_var", "num_batches_tracked")

# Published module, module of this package, its weights. `#` stands for the layer index.
_ModuleNames = tuple[str, str, tuple[str, ...]]
_ATOMS: tuple[_ModuleNames, ...] = (
    ("graph_encoder.x_embedding1", "graph_encoder.atom_type", _TABLE),
    ("graph_encoder.x_embedding2", "graph_encoder.chirality", _TABLE),
)
_GRAPH_LAYER: tuple[_ModuleNames, ...] = (
    ("graph_encoder.gnns.#.edge_embedding1", "graph_encoder.layers.#.bond_type", _TABLE),
    ("graph_encoder.gnns.#.edge_embedding2", "graph_encoder.layers.#.bond_direction", _TABLE),
    ("graph_encoder.gnns.#.mlp.0", "graph_encoder.layers.#.mlp.0", _LINEAR),
    ("graph_encoder.gnns.#.mlp.2", "graph_encoder.layers.#.mlp.2", _LINEAR),
    ("graph_encoder.batch_norms.#", "graph_encoder.layers.#.norm", _BATCH_NORM),
)
_NORMS: tuple[_ModuleNames, ...] = (
    ("ln_graph", "graph_encoder.norm", _NORM),
    ("Qformer.bert.embeddings.LayerNorm", "qformer.norm", _NORM),
)
_PUBLISHED_LAYER, _OWN_LAYER = "Qformer.bert.encoder.layer.#", "qformer.layers.#"
_FEED_FORWARD: tuple[_ModuleNames, ...] = (
    (f"{_PUBLISHED_LAYER}.intermediate_query.dense", f"{_OWN_LAYER}.up", _LINEAR),
    (f"{_PUBLISHED_LAYER}.output_query.dense", f"{_OWN_LAYER}.down", _LINEAR),
    (f"{_PUBLISHED_LAYER}.output_query.LayerNorm", f"{_OWN_LAYER}.norm", _NORM),
)


def _attention(published: str, own: str) -> tuple[_ModuleNames, ...]:
    published, own = f"{_PUBLISHED_LAYER}.{published}", f"{_OWN_LAYER}.{own}"
    inputs = tuple(
        (f"{published}.self.{name}", f"{own}.{name}", _LINEAR) for name in ("query", "key", "value")
    )
    return (
        *inputs,
        (f"{published}.output.dense", f"{own}.output", _LINEAR),
        (f"{published}.output.LayerNorm", f"{own}.norm", _NORM),
    )


_SELF_ATTENTION = _attention("attention", "self_attention")
_CROSS_ATTENTION = _attention("crossattention", "cross_attention")

_POSITIONS = (r"Qformer\.bert\.embeddings\.position_ids", "position ids of texts")
_TEXT_BRANCH = "text branch of the pre-training"
_UNUSED = {
    2: (_POSITIONS,),
    1: (
        _POSITIONS,
        (r"Qformer\.cls\..+", _TEXT_BRANCH),
        (r"Qformer\.bert\.embeddings\.(word|position)_embeddings\.weight", _TEXT_BRANCH),
        (r"Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\..+", _TEXT_BRANCH),
        (r"(graph|text)_proj\.(weight|bias)", "contrastive loss of the pre-training"),
        (r"temp", "temperature of the contrastive loss"),
        (r"gtm_head\.(weight|bias)", "matching loss of the pre-training"),
    ),
}
"""Patterns of weights that do not affect answers, by stage, each with its purpose."""


@dataclass(frozen=True, slots=True)
class EncoderLayout:
    """Layer structure of a molecule encoder, inferred from its weight names.

    Attributes:
        graph_layers: Number of layers of the graph encoder.
        qformer_layers: Number of layers of the Q-Former.
        cross_attention_layers: Indices of the Q-Former layers with cross-attention, ascending.
    """

    graph_layers: int
    qformer_layers: int
    cross_attention_layers: tuple[int, ...]


@dataclass(slots=True)
class LightningWeights:
    """Weights of a Lightning file, grouped by component.

    Attributes:
        stage: Training stage, 1 or 2.
        encoder: Graph encoder and Q-Former, by published name without the stage's prefix.
        projection: Projection to the language model, by published name without the prefix.
        language_model: Fully tuned language model, by transformers' names.
        lora: LoRA matrices, by module name and letter (A or B).
        unused: Purpose of each weight that does not affect answers, by full name.
        superfluous: Full names of unknown weights.
    """

    stage: int
    encoder: dict[str, Tensor] = field(default_factory=dict)
    projection: dict[str, Tensor] = field(default_factory=dict)
    language_model: dict[str, Tensor] = field(default_factory=dict)
    lora: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    superfluous: list[str] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        """Prefix of the published weight names."""
        return PREFIXES[self.stage]


def group_weights(state: Mapping[str, Tensor]) -> LightningWeights | None:
    """Group the weights of a Lightning file by component.

    Returns:
        The groups, or None if no weight name has a published prefix.
    """
    stage = next(
        (
            stage
            for stage, prefix in PREFIXES.items()
            if any(name.startswith(prefix) for name in state)
        ),
        None,
    )
    if stage is None:
        return None
    weights = LightningWeights(stage)
    has_lora = any(_LORA.fullmatch(name.removeprefix(weights.prefix)) for name in state)
    for full_name, tensor in state.items():
        name = full_name.removeprefix(weights.prefix)
        if name == full_name:
            weights.superfluous.append(full_name)
        elif purpose := _unused_purpose(stage, name):
            weights.unused[full_name] = purpose
        elif name.startswith(PROJECTION):
            weights.projection[name] = tensor
        elif not name.startswith(LANGUAGE_MODEL):
            weights.encoder[name] = tensor
        elif match := _LORA.fullmatch(name):
            weights.lora[match[1], match[2]] = tensor
        elif has_lora:
            # LoRA's base weights come from the language-model folder, not from this file.
            weights.superfluous.append(full_name)
        else:
            weights.language_model[name.removeprefix(LANGUAGE_MODEL)] = tensor
    return weights


def infer_layout(names: Iterable[str]) -> EncoderLayout:
    """Infer the layer structure of a molecule encoder.

    Args:
        names: Published weight names without the stage's prefix.
    """
    names = list(names)
    # At most three digits, so that an absurd index becomes a superfluous name, not a huge layout.
    graph = _layer_indices(r"graph_encoder\.(?:gnns|batch_norms)\.(\d{1,3})\.", names)
    layers = _layer_indices(r"Qformer\.bert\.encoder\.layer\.(\d{1,3})\.", names)
    cross_attention = _layer_indices(
        r"Qformer\.bert\.encoder\.layer\.(\d{1,3})\.crossattention\.", names
    )
    # At least one layer each, so that an absent component is reported as missing weights.
    return EncoderLayout(
        max(graph, default=0) + 1,
        max(layers, default=0) + 1,
        tuple(sorted(cross_attention or {0})),
    )


def encoder_weight_names(layout: EncoderLayout) -> dict[str, str]:
    """Return this package's name of every published encoder weight, in the model's order."""
    names = dict(_expand(_ATOMS))
    for layer in range(layout.graph_layers):
        names.update(_expand(_GRAPH_LAYER, layer))
    names[QUERIES] = "qformer.queries"
    names.update(_expand(_NORMS))
    for layer in range(layout.qformer_layers):
        names.update(_expand(_SELF_ATTENTION, layer))
        if layer in layout.cross_attention_layers:
            names.update(_expand(_CROSS_ATTENTION, layer))
        names.update(_expand(_FEED_FORWARD, layer))
    return names


def _expand(modules: Iterable[_ModuleNames], layer: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the published and the own name of every weight of some modules."""
    for published, own, weights in modules:
        for weight in weights:
            yield (
                f"{published}.{weight}".replace("#", str(layer)),
                f"{own}.{weight}".replace("#", str(layer)),
            )


def _layer_indices(pattern: str, names: Iterable[str]) -> set[int]:
    return {int(match[1]) for name in names if (match := re.match(pattern, name))}


def _unused_purpose(stage: int, name: str) -> str | None:
    return next(
        (purpose for pattern, purpose in _UNUSED[stage] if re.fullmatch(pattern, name)), None
    )
