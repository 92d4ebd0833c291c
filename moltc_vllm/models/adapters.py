"""LoRA adapters of a checkpoint folder, ``adapters/<name>/`` in PEFT's layout: checked and read.

A name is usually a task's, and then the adapter is that task's. vLLM reads adapters while its
engine runs, where a bad one ends the engine, and some of their settings it passes over without a
word. So everything about them is judged here, first.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from moltc_vllm.models.checkpoint import CheckpointError, load_config

FOLDER = "adapters"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

# PEFT trains the bare language model; inside `MoltcModel` it has a prefix.
_KEY = re.compile(
    r"(?:base_model\.model\.)?(?:language_model\.)?(?P<module>.+)\.lora_(?P<half>[AB])\.weight"
)

# Settings that change what an adapter computes, and that vLLM refuses or does not look at.
_UNSUPPORTED = (
    *("use_dora", "lora_bias", "modules_to_save", "trainable_token_indices", "target_parameters"),
    *("alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora"),
    *("arrow_config", "kasa_config"),
)

# Others (PiSSA, OLoRA, LoftQ, ...) change the base weights when PEFT loads the adapter.
_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


class AdapterError(CheckpointError):
    """An adapter that is not complete, or does not fit the language model; one line."""


class LowRank(NamedTuple):
    """The change of one linear layer: ``scale * b @ a`` is added to its weight."""

    a: Tensor  # [rank, in]
    b: Tensor  # [out, rank]
    scale: float


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that fits its language model.

    Attributes:
        name: Of its folder, usually a task's.
        folder: Where it is.
        rank: Largest rank its configuration names.
        layers: Its change of each linear layer, by the layer's name in the language model.
    """

    name: str
    folder: Path
    rank: int
    layers: Mapping[str, LowRank]


def load_adapters(folder: Path) -> list[Adapter]:
    """Check and read all adapters of a checkpoint folder, by name.

    Raises:
        AdapterError: If one is not complete or does not fit; it names the adapter and the cause.
        CheckpointError: If there are adapters, and the folder is no checkpoint.
    """
    # Hidden ones are what writers leave behind when they are interrupted.
    root = folder / FOLDER
    found = root.iterdir() if root.is_dir() else ()
    folders = sorted(path for path in found if path.is_dir() and not path.name.startswith("."))
    if not folders:
        return []
    linears = linear_layers(load_config(folder).text_config)
    return [_load(path, linears) for path in folders]


def declared_rank(folder: Path) -> int | None:
    """The largest rank an adapter's configuration names, if it can be read."""
    try:
        return _Settings.read(folder).largest
    except AdapterError:
        return None


def linear_layers(config: PretrainedConfig) -> dict[str, tuple[int, int]]:
    """Sizes ``(out, in)`` of the linear layers, without the output layer, which may be tied."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    return {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def _load(folder: Path, linears: Mapping[str, tuple[int, int]]) -> Adapter:
    try:
        settings = _Settings.read(folder)
        expected = settings.expected(linears)
        layers = dict(_layers(folder / WEIGHTS_FILE, settings, linears))
        missing = sorted(expected - layers.keys())
        if missing:
            raise AdapterError(f"{WEIGHTS_FILE} has no weights for {missing[0]}, a target module")
    except AdapterError as error:
        raise AdapterError(f"adapter {folder.name!r}: {error}") from error
    return Adapter(folder.name, folder, settings.largest, layers)


@dataclass(frozen=True, slots=True)
class _Settings:
    """What ``adapter_config.json`` says, as far as it is used."""

    rank: int
    alpha: float
    targets: list[str] | str
    all_layers: bool  # every target module of every layer has weights
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    stabilised: bool

    @classmethod
    def read(cls, folder: Path) -> _Settings:
        raw = _read_json(folder / CONFIG_FILE)
        if raw.get("peft_type") != "LORA":
            raise AdapterError(f"peft_type is {raw.get('peft_type')!r}, only LORA is served")
        for name in _UNSUPPORTED:
            if raw.get(name):
                raise AdapterError(f"{name} is set, which vLLM would not apply")
        if raw.get("bias", "none") != "none":
            raise AdapterError(f"bias is {raw['bias']!r}, which vLLM would not apply")
        init = raw.get("init_lora_weights", True)
        if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
            raise AdapterError(f"init_lora_weights {init!r} changes the base weights as well")
        settings = cls(
            rank=raw.get("r", 0),
            alpha=raw.get("lora_alpha", 0),
            targets=raw.get("target_modules") or [],
            all_layers=all(
                raw.get(name) in (None, []) for name in ("layers_to_transform", "exclude_modules")
            ),
            rank_pattern=raw.get("rank_pattern") or {},
            alpha_pattern=raw.get("alpha_pattern") or {},
            stabilised=bool(raw.get("use_rslora")),
        )
        settings._check()
        return settings

    def _check(self) -> None:
        for name, value, kind in (
            ("target_modules", self.targets, (list, str)),
            ("rank_pattern", self.rank_pattern, dict),
            ("alpha_pattern", self.alpha_pattern, dict),
        ):
            if not isinstance(value, kind):
                raise AdapterError(f"{name} is of type {type(value).__name__}")
        for rank in (self.rank, *self.rank_pattern.values()):
            if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
                raise AdapterError(f"rank {rank!r} is not a positive integer")
        for alpha in (self.alpha, *self.alpha_pattern.values()):
            number = isinstance(alpha, (int, float)) and not isinstance(alpha, bool)
            if not number or not math.isfinite(alpha) or alpha <= 0:
                raise AdapterError(f"lora_alpha {alpha!r} is not a positive number")
        targets = [self.targets] if isinstance(self.targets, str) else []
        for pattern in (*targets, *self.rank_pattern, *self.alpha_pattern):
            try:
                re.compile(pattern)
            except re.error as error:
                raise AdapterError(f"pattern {pattern!r}: {error}") from error

    @property
    def largest(self) -> int:
        return max(self.rank, *self.rank_pattern.values(), 0)

    def expected(self, linears: Mapping[str, tuple[int, int]]) -> set[str]:
        """Layers that must have weights, by PEFT's rules for targets."""
        if self.targets == "all-linear":
            named = set(linears)
        elif isinstance(self.targets, str):
            named = {name for name in linears if re.fullmatch(self.targets, name)}
        else:
            named = set()
            for target in self.targets:
                layers = {name for name in linears if f".{name}".endswith(f".{target}")}
                if not layers:
                    there = sorted({name.rpartition(".")[2] for name in linears})
                    raise AdapterError(
                        f"target module {target!r}: the language model has no such linear layer "
                        f"(it has {', '.join(there)})"
                    )
                named |= layers
        return named if self.all_layers else set()

    def of(self, module: str) -> tuple[int, float]:
        """Rank and scale of one layer."""
        rank = _matching(self.rank_pattern, module, self.rank)
        alpha = _matching(self.alpha_pattern, module, self.alpha)
        return rank, alpha / (math.sqrt(rank) if self.stabilised else rank)


def _layers(
    path: Path, settings: _Settings, linears: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, LowRank]]:
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in _read_tensors(path).items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise AdapterError(f"{key} is not a LoRA weight of a linear layer")
        if match["module"] not in linears:
            raise AdapterError(f"{key}: the language model has no linear layer {match['module']}")
        if not tensor.is_floating_point():
            raise AdapterError(f"{key} is {tensor.dtype}, not floating point")
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"{key} holds NaN or infinite values")
        halves.setdefault(match["module"], {})[match["half"]] = tensor
    if not halves:
        raise AdapterError(f"{WEIGHTS_FILE} is empty")
    for module, pair in sorted(halves.items()):
        rank, scale = settings.of(module)
        out_size, in_size = linears[module]
        for half, shape in (("A", [rank, in_size]), ("B", [out_size, rank])):
            if half not in pair:
                raise AdapterError(f"{module} has no lora_{half}")
            if list(pair[half].shape) != shape:
                raise AdapterError(
                    f"{module}.lora_{half} has shape {list(pair[half].shape)}, expected {shape}"
                )
        yield module, LowRank(pair["A"], pair["B"], scale)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise AdapterError(f"{path.name} is missing")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise AdapterError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise AdapterError(f"{path.name} is not an object")
    return content


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise AdapterError(f"{path.name} is missing")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except Exception as error:  # safetensors has one error class for all defects
        raise AdapterError(f"{path.name} cannot be read: {error}") from error


def _matching(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """PEFT's rule for patterns: the first that fits the end of the layer's name."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
