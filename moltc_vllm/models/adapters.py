"""LoRA adapters of a checkpoint folder, ``adapters/<name>/`` in PEFT's format.

An adapter named after a task is applied to that task. vLLM reads adapters while its engine runs,
and an invalid one stops the engine. Adapters are therefore fully checked here, before it starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from moltc_vllm.models.adapter_config import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_WEIGHTS_FILE,
    AdapterConfig,
)
from moltc_vllm.models.checkpoint import load_config
from moltc_vllm.models.errors import AdapterError
from moltc_vllm.utils.errors import one_line

__all__ = [
    "ADAPTERS_FOLDER",
    "ADAPTER_CONFIG_FILE",
    "ADAPTER_WEIGHTS_FILE",
    "Adapter",
    "AdapterError",
    "LoraDelta",
    "declared_rank",
    "linear_layer_shapes",
    "load_adapters",
]

ADAPTERS_FOLDER = "adapters"

# PEFT trains the bare language model; inside `MoltcModel` its weights have a prefix.
_KEY = re.compile(
    r"(?:base_model\.model\.)?(?:language_model\.)?(?P<layer>.+)\.lora_(?P<half>[AB])\.weight"
)


class LoraDelta(NamedTuple):
    """Change of one linear layer: ``scale * b @ a`` is added to its weight.

    Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
    """

    a: Tensor  # [rank, in]
    b: Tensor  # [out, rank]
    scale: float


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that fits its language model.

    Attributes:
        name: Name of the adapter's folder, usually a task's name.
        folder: Path of that folder.
        rank: Largest rank in the adapter's configuration.
        layers: Changes of linear layers, by the layers' names in the language model.
    """

    name: str
    folder: Path
    rank: int
    layers: Mapping[str, LoraDelta]


def load_adapters(folder: Path) -> list[Adapter]:
    """Read and check all adapters of a checkpoint folder.

    Args:
        folder: Checkpoint folder.

    Returns:
        Adapters sorted by name.

    Raises:
        AdapterError: If an adapter is incomplete or does not fit; the message names it and the
            cause.
        CheckpointError: If the folder has adapters but is not a checkpoint.
    """
    root = folder / ADAPTERS_FOLDER
    paths = root.iterdir() if root.is_dir() else ()
    # Interrupted writers leave hidden folders behind.
    folders = sorted(path for path in paths if path.is_dir() and not path.name.startswith("."))
    if not folders:
        return []
    shapes = linear_layer_shapes(load_config(folder).text_config)
    return [_load_adapter(path, shapes) for path in folders]


def declared_rank(folder: Path) -> int | None:
    """Return the largest rank that an adapter's configuration names; ``None`` if it is invalid.

    Args:
        folder: Folder of the adapter.
    """
    try:
        return AdapterConfig.read(folder).max_rank
    except AdapterError:
        return None


def linear_layer_shapes(config: PretrainedConfig) -> dict[str, tuple[int, int]]:
    """Return the shapes ``(out, in)`` of a language model's linear layers, by name.

    The output layer is left out, because it may share its weight with the embeddings.

    Args:
        config: Configuration of the language model.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    return {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def _load_adapter(folder: Path, shapes: Mapping[str, tuple[int, int]]) -> Adapter:
    try:
        config = AdapterConfig.read(folder)
        required = config.required_layers(shapes)
        layers = dict(_read_deltas(folder / ADAPTER_WEIGHTS_FILE, config, shapes))
        missing = sorted(required - layers.keys())
        if missing:
            raise AdapterError(
                f"{ADAPTER_WEIGHTS_FILE} has no weights for {missing[0]}, a target module"
            )
    except AdapterError as error:
        raise AdapterError(f"adapter {folder.name!r}: {error}") from error
    return Adapter(folder.name, folder, config.max_rank, layers)


def _read_deltas(
    path: Path, config: AdapterConfig, shapes: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, LoraDelta]]:
    """Yield each layer's name and change, sorted by name."""
    halves = _group_by_layer(_read_tensors(path), shapes)
    for layer, tensors in sorted(halves.items()):
        rank, scale = config.rank_and_scale(layer)
        out_size, in_size = shapes[layer]
        for half, shape in (("A", [rank, in_size]), ("B", [out_size, rank])):
            if half not in tensors:
                raise AdapterError(f"{layer} has no lora_{half}")
            if list(tensors[half].shape) != shape:
                raise AdapterError(
                    f"{layer}.lora_{half} has shape {list(tensors[half].shape)}, expected {shape}"
                )
        yield layer, LoraDelta(tensors["A"], tensors["B"], scale)


def _group_by_layer(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, int]]
) -> dict[str, dict[str, Tensor]]:
    """Check the tensors of a file and group them as halves ``A`` and ``B`` of each layer."""
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise AdapterError(f"{key} is not a LoRA weight of a linear layer")
        if match["layer"] not in shapes:
            raise AdapterError(f"{key}: the language model has no linear layer {match['layer']}")
        if not tensor.is_floating_point():
            raise AdapterError(f"{key} is {tensor.dtype}, not floating point")
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"{key} holds NaN or infinite values")
        halves.setdefault(match["layer"], {})[match["half"]] = tensor
    if not halves:
        raise AdapterError(f"{ADAPTER_WEIGHTS_FILE} is empty")
    return halves


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise AdapterError(f"{path.name} is missing")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except Exception as error:  # safetensors raises one class for all defects
        raise AdapterError(f"{path.name} cannot be read: {one_line(error)}") from error
