"""Published names of weights, and which of ours each is.

A Lightning file of stage 2 has everything below ``blip2opt.``, one of stage 1 (MolCA's
pre-training, no language model yet) below ``blip2qformer.``.

Source: checkpoints of the published MolTC and MolCA code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

PREFIXES = {2: "blip2opt.", 1: "blip2qformer."}
"""What the names of a stage's weights begin with."""

GRAPH_ENCODER = "graph_encoder."
QUERIES = "query_tokens"  # [1, queries, width]; ours has no first dimension
PROJECTION = "opt_proj."
LANGUAGE_MODEL = "opt_model."
_LORA = re.compile(r"opt_model\.base_model\.model\.(.+)\.lora_([AB])\.default\.weight")

_TABLE = ("weight",)
_LINEAR = _NORM = ("weight", "bias")
_BATCH_NORM = (*_NORM, "running_mean", "running_var", "num_batches_tracked")

# Published module, our module, its weights. `#` is the number of the layer.
_Row = tuple[str, str, tuple[str, ...]]
_ATOMS: tuple[_Row, ...] = (
    ("graph_encoder.x_embedding1", "graph_encoder.atom_type", _TABLE),
    ("graph_encoder.x_embedding2", "graph_encoder.chirality", _TABLE),
)
_GRAPH_LAYER: tuple[_Row, ...] = (
    ("graph_encoder.gnns.#.edge_embedding1", "graph_encoder.layers.#.bond_type", _TABLE),
    ("graph_encoder.gnns.#.edge_embedding2", "graph_encoder.layers.#.bond_direction", _TABLE),
    ("graph_encoder.gnns.#.mlp.0", "graph_encoder.layers.#.mlp.0", _LINEAR),
    ("graph_encoder.gnns.#.mlp.2", "graph_encoder.layers.#.mlp.2", _LINEAR),
    ("graph_encoder.batch_norms.#", "graph_encoder.layers.#.norm", _BATCH_NORM),
)
_NORMS: tuple[_Row, ...] = (
    ("ln_graph", "graph_encoder.norm", _NORM),
    ("Qformer.bert.embeddings.LayerNorm", "qformer.norm", _NORM),
)
_IN_LAYER, _OUR_LAYER = "Qformer.bert.encoder.layer.#", "qformer.layers.#"
_FEED_FORWARD: tuple[_Row, ...] = (
    (f"{_IN_LAYER}.intermediate_query.dense", f"{_OUR_LAYER}.up", _LINEAR),
    (f"{_IN_LAYER}.output_query.dense", f"{_OUR_LAYER}.down", _LINEAR),
    (f"{_IN_LAYER}.output_query.LayerNorm", f"{_OUR_LAYER}.norm", _NORM),
)


def _attention(published: str, ours: str) -> tuple[_Row, ...]:
    theirs, own = f"{_IN_LAYER}.{published}", f"{_OUR_LAYER}.{ours}"
    parts = tuple((f"{theirs}.self.{p}", f"{own}.{p}", _LINEAR) for p in ("query", "key", "value"))
    return (
        *parts,
        (f"{theirs}.output.dense", f"{own}.output", _LINEAR),
        (f"{theirs}.output.LayerNorm", f"{own}.norm", _NORM),
    )


_SELF_ATTENTION = _attention("attention", "self_attention")
_CROSS_ATTENTION = _attention("crossattention", "cross_attention")

_POSITIONS = (r"Qformer\.bert\.embeddings\.position_ids", "numbers of text positions")
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
"""Weights of each stage that answers do not depend on, and what they are."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How many layers there are, as the names of the weights tell it."""

    graph_layers: int
    qformer_layers: int
    crossing: tuple[int, ...]  # layers of the Q-Former with cross-attention


@dataclass(slots=True)
class Parts:
    """The weights of a Lightning file; names are without the stage's prefix."""

    stage: int
    encoder: dict[str, Tensor] = field(default_factory=dict)  # graph encoder and Q-Former
    projection: dict[str, Tensor] = field(default_factory=dict)
    language_model: dict[str, Tensor] = field(default_factory=dict)  # under transformers' names
    lora: dict[tuple[str, str], Tensor] = field(default_factory=dict)  # by module, and A or B
    unused: dict[str, str] = field(default_factory=dict)  # whole name: what it is
    unmatched: list[str] = field(default_factory=list)  # whole names

    @property
    def prefix(self) -> str:
        """What the stage's names begin with."""
        return PREFIXES[self.stage]


def sort_weights(state: Mapping[str, Tensor]) -> Parts | None:
    """Tell the parts of a published model apart; ``None`` if nothing is named like one."""
    stage = next((s for s, p in PREFIXES.items() if any(key.startswith(p) for key in state)), None)
    if stage is None:
        return None
    parts = Parts(stage)
    has_lora = any(_LORA.fullmatch(key.removeprefix(parts.prefix)) for key in state)
    for whole, tensor in state.items():
        key = whole.removeprefix(parts.prefix)
        if key == whole:
            parts.unmatched.append(whole)
        elif reason := _unused(stage, key):
            parts.unused[whole] = reason
        elif key.startswith(PROJECTION):
            parts.projection[key] = tensor
        elif not key.startswith(LANGUAGE_MODEL):
            parts.encoder[key] = tensor
        elif match := _LORA.fullmatch(key):
            parts.lora[match[1], match[2]] = tensor
        elif has_lora:
            parts.unmatched.append(whole)  # the language-model folder has what LoRA was put on
        else:
            parts.language_model[key.removeprefix(LANGUAGE_MODEL)] = tensor
    return parts


def layout_of(keys: Iterable[str]) -> Layout:
    """Count layers.

    Args:
        keys: Published names of an encoder's weights, without the stage's prefix.
    """
    keys = list(keys)
    # Three digits: a silly number is a name that does not fit, not an endless list.
    graph = _numbers(r"graph_encoder\.(?:gnns|batch_norms)\.(\d{1,3})\.", keys)
    layers = _numbers(r"Qformer\.bert\.encoder\.layer\.(\d{1,3})\.", keys)
    crossing = _numbers(r"Qformer\.bert\.encoder\.layer\.(\d{1,3})\.crossattention\.", keys)
    # At least one of each: what is missing altogether is named as missing then.
    return Layout(
        max(graph, default=0) + 1, max(layers, default=0) + 1, tuple(sorted(crossing or {0}))
    )


def encoder_names(layout: Layout) -> dict[str, str]:
    """Our name of every weight of a published molecule encoder, in the order of the model."""
    names = dict(_rows(_ATOMS))
    for number in range(layout.graph_layers):
        names.update(_rows(_GRAPH_LAYER, number))
    names[QUERIES] = "qformer.queries"
    names.update(_rows(_NORMS))
    for number in range(layout.qformer_layers):
        names.update(_rows(_SELF_ATTENTION, number))
        if number in layout.crossing:
            names.update(_rows(_CROSS_ATTENTION, number))
        names.update(_rows(_FEED_FORWARD, number))
    return names


def _rows(rows: Iterable[_Row], number: int = 0) -> Iterator[tuple[str, str]]:
    for published, ours, weights in rows:
        for weight in weights:
            theirs, own = (
                f"{name}.{weight}".replace("#", str(number)) for name in (published, ours)
            )
            yield theirs, own


def _numbers(pattern: str, keys: Iterable[str]) -> set[int]:
    return {int(match[1]) for key in keys if (match := re.match(pattern, key))}


def _unused(stage: int, key: str) -> str | None:
    return next((why for pattern, why in _UNUSED[stage] if re.fullmatch(pattern, key)), None)
