"""``adapter_config.json`` of a LoRA adapter in PEFT's format: parsing and validation.

Every setting that vLLM would refuse or silently ignore is an error here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moltc_vllm.models.errors import AdapterError
from moltc_vllm.utils.json_objects import read_json_object

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"

# Settings that change the result of an adapter, and that vLLM refuses or ignores.
_UNSUPPORTED_SETTINGS = (
    *("use_dora", "lora_bias", "modules_to_save", "trainable_token_indices", "target_parameters"),
    *("alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora"),
    *("arrow_config", "kasa_config"),
)

# Other initializations (PiSSA, OLoRA, LoftQ, ...) change the base weights when PEFT loads the
# adapter.
_SUPPORTED_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """Settings of ``adapter_config.json`` that determine an adapter's products.

    Attributes:
        rank: Rank of layers that no pattern matches (``r``).
        alpha: Scale numerator of layers that no pattern matches (``lora_alpha``).
        targets: Names of target modules, or one regular expression (``target_modules``).
        covers_all_layers: Whether every target module of every layer must have weights.
        rank_pattern: Ranks by regular expression of layer names.
        alpha_pattern: Scale numerators by regular expression of layer names.
        rank_stabilized: Whether scales divide by the root of the rank (``use_rslora``).
    """

    rank: int
    alpha: float
    targets: list[str] | str
    covers_all_layers: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rank_stabilized: bool

    @classmethod
    def read(cls, folder: Path) -> AdapterConfig:
        """Read and validate the configuration of an adapter folder.

        Args:
            folder: Folder of the adapter.

        Raises:
            AdapterError: If the file is missing or malformed, or has a setting that vLLM does not
                support.
        """
        raw = _read_json(folder / ADAPTER_CONFIG_FILE)
        _check_support(raw)
        config = cls(
            rank=raw.get("r", 0),
            alpha=raw.get("lora_alpha", 0),
            targets=raw.get("target_modules") or [],
            covers_all_layers=all(
                raw.get(name) in (None, []) for name in ("layers_to_transform", "exclude_modules")
            ),
            rank_pattern=raw.get("rank_pattern") or {},
            alpha_pattern=raw.get("alpha_pattern") or {},
            rank_stabilized=bool(raw.get("use_rslora")),
        )
        config._check_values()
        return config

    def _check_values(self) -> None:
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
            is_number = isinstance(alpha, (int, float)) and not isinstance(alpha, bool)
            if not is_number or not math.isfinite(alpha) or alpha <= 0:
                raise AdapterError(f"lora_alpha {alpha!r} is not a positive number")
        targets = [self.targets] if isinstance(self.targets, str) else []
        for pattern in (*targets, *self.rank_pattern, *self.alpha_pattern):
            try:
                re.compile(pattern)
            except re.error as error:
                raise AdapterError(f"pattern {pattern!r}: {error}") from error

    @property
    def max_rank(self) -> int:
        """Largest rank of any layer."""
        return max(self.rank, *self.rank_pattern.values(), 0)

    def required_layers(self, shapes: Mapping[str, tuple[int, int]]) -> set[str]:
        """Return the layers that must have weights, by PEFT's rules for target modules.

        Args:
            shapes: Linear layers of the language model, by name.

        Raises:
            AdapterError: If a target module matches no linear layer.
        """
        if self.targets == "all-linear":
            layers = set(shapes)
        elif isinstance(self.targets, str):
            layers = {name for name in shapes if re.fullmatch(self.targets, name)}
        else:
            layers = set()
            for target in self.targets:
                matches = {name for name in shapes if f".{name}".endswith(f".{target}")}
                if not matches:
                    available = sorted({name.rpartition(".")[2] for name in shapes})
                    raise AdapterError(
                        f"target module {target!r}: the language model has no such linear layer "
                        f"(it has {', '.join(available)})"
                    )
                layers |= matches
        return layers if self.covers_all_layers else set()

    def rank_and_scale(self, layer: str) -> tuple[int, float]:
        """Return the rank of one layer and the scale of its products.

        Args:
            layer: Name of the layer in the language model.
        """
        rank = _match_pattern(self.rank_pattern, layer, self.rank)
        alpha = _match_pattern(self.alpha_pattern, layer, self.alpha)
        return rank, alpha / (math.sqrt(rank) if self.rank_stabilized else rank)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise AdapterError(f"{path.name} is missing")
    try:
        return read_json_object(path)
    except ValueError as error:
        raise AdapterError(str(error)) from error


def _check_support(raw: Mapping[str, Any]) -> None:
    """Raise for settings that vLLM would not apply."""
    if raw.get("peft_type") != "LORA":
        raise AdapterError(f"peft_type is {raw.get('peft_type')!r}, only LORA is served")
    for name in _UNSUPPORTED_SETTINGS:
        if raw.get(name):
            raise AdapterError(f"{name} is set, which vLLM would not apply")
    if raw.get("bias", "none") != "none":
        raise AdapterError(f"bias is {raw['bias']!r}, which vLLM would not apply")
    init = raw.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _SUPPORTED_INITS:
        raise AdapterError(f"init_lora_weights {init!r} changes the base weights as well")


def _match_pattern(patterns: Mapping[str, Any], layer: str, default: Any) -> Any:
    """Return the value of the first pattern that matches the end of a layer's name, as in PEFT."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", layer):
            return value
    return default
