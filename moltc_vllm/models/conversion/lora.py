"""LoRA adapters: PEFT's folders, and the weights that newer MolCA code leaves in its own file.

Source: LoRA (Hu et al. 2021); PEFT 0.3 to 0.18's folders.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from moltc_vllm.models.conversion.files import read_json, read_safetensors
from moltc_vllm.models.conversion.pickles import read_tensors
from moltc_vllm.models.language_model import LanguageLayout
from moltc_vllm.models.weights import WeightsError, checked_tensor, summary

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")

# Settings that change nothing in what the weights mean, whatever their value.
_WITHOUT_EFFECT = frozenset(
    {
        *("base_model_name_or_path", "revision", "auto_mapping", "peft_version", "inference_mode"),
        *("lora_dropout", "megatron_core", "qalora_group_size"),
    }
)
_UNDERSTOOD = frozenset(
    {
        *("peft_type", "task_type", "r", "lora_alpha", "target_modules", "fan_in_fan_out"),
        *("use_rslora", "bias", "init_lora_weights"),
    }
)
# Ways to draw A and B that leave the base model as it was; others (PiSSA, LoftQ) change it.
_INITIALISATIONS = (None, True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True, slots=True)
class Lora:
    """An adapter: for some modules of the language model a product of two thin matrices.

    Attributes:
        source: The file or folder it is from, for messages.
        pairs: By module: A ``[r, in]`` and B ``[out, r]``.
        rank: r.
        alpha: The product's weight, before it is divided by r.
        rank_stabilised: Divided by the root of r instead.
        transposed: The base model stores its weights ``[in, out]``.
        config: The adapter's own configuration.
    """

    source: Path
    pairs: Mapping[str, tuple[Tensor, Tensor]]
    rank: int
    alpha: float
    rank_stabilised: bool
    transposed: bool
    config: Mapping[str, Any]

    @property
    def scale(self) -> float:
        """What the product is multiplied with."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    def check(self, base: LanguageLayout) -> None:
        """Compare with the language model it is put on.

        Args:
            base: Its weights.

        Raises:
            WeightsError: If a module is not there, not of the right shape, or left out.
        """
        lines = [line for module in self.pairs if (line := self._misfit(module, base))]
        lines += [
            f"missing weights for {module}, which target_modules names"
            for module in (key.removesuffix(".weight") for key in base.shapes)
            if len(base.shapes.get(f"{module}.weight", ())) == 2
            and module not in self.pairs
            and self._targets(module)
        ]
        if lines:
            raise WeightsError(summary(self.source, lines), lines)

    def merged(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Add the products to a stream of the language model's weights, in their dtype.

        Raises:
            WeightsError: If a result is not finite in that dtype.
        """
        for key, tensor in weights:
            pair = self.pairs.get(key.removesuffix(".weight"))
            if pair is not None and key.endswith(".weight"):
                tensor = self._added(tensor, *pair)
                if not torch.isfinite(tensor).all():
                    raise WeightsError(
                        f"{self.source}: {key} is not finite in {tensor.dtype} after merging"
                    )
            yield key, tensor

    def write(self, folder: Path, base_model: str) -> None:
        """Write a PEFT folder; every tensor keeps its dtype.

        Args:
            folder: Must not exist.
            base_model: What the adapter says it belongs to.
        """
        folder.mkdir(parents=True)
        config = {**self.config, "base_model_name_or_path": base_model, "inference_mode": True}
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        tensors = {
            f"base_model.model.{module}.lora_{part}.weight": tensor.contiguous()
            for module, pair in self.pairs.items()
            for part, tensor in zip("AB", pair, strict=True)
        }
        save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})

    def _added(self, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
        # In float64 the only rounding that counts is the last one, to the weight's dtype.
        wide = weight.to(torch.float64, copy=True)
        target = wide.T if self.transposed else wide
        target.addmm_(b.double(), a.double(), alpha=self.scale)
        return wide.to(weight.dtype)

    def _misfit(self, module: str, base: LanguageLayout) -> str | None:
        """Why a pair does not go with the language model."""
        key = f"{module}.weight"
        shape = base.shapes.get(key)
        if shape is None or len(shape) != 2:
            return f"the language model has no matrix {key}"
        if self.transposed != (key in base.transposed):
            return f"fan_in_fan_out is {self.transposed}, but {key} is stored the other way"
        a, b = self.pairs[module]
        found, expected = (b.shape[0], a.shape[1]), tuple(shape)[:: -1 if self.transposed else 1]
        if found != expected:
            return f"{module}: B A has shape {list(found)}, expected {list(expected)}"
        return None if self._targets(module) else f"{module} is not among target_modules"

    def _targets(self, module: str) -> bool:
        targets = self.config["target_modules"]
        if isinstance(targets, str):
            return re.fullmatch(targets, module) is not None
        return any(module == name or module.endswith(f".{name}") for name in targets)


def read_lora(folder: Path) -> Lora:
    """Read a PEFT folder.

    Raises:
        WeightsError: If a file is missing or damaged, a weight does not fit, or the configuration
            asks for something that would be ignored here.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not a folder")
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise WeightsError(f"{folder} is not a LoRA folder: it has no {CONFIG_FILE}")
    config = read_json(path)
    _check_config(config, path)
    weights = lora_files(folder)[1]
    tensors = (
        read_safetensors(weights) if weights.suffix == ".safetensors" else read_tensors(weights)
    )
    halves = {}
    unknown = []
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None:
            unknown.append(f"superfluous weight {key}")
        else:
            halves[match[1], match[2]] = checked_tensor(key, tensor, weights)
    if unknown:
        raise WeightsError(summary(weights, unknown), unknown)
    return _lora(folder, halves, config)


def lora_files(folder: Path) -> tuple[Path, Path]:
    """Configuration and weights of a PEFT folder.

    Raises:
        WeightsError: If it has no weights.
    """
    for name in (WEIGHTS_FILE, "adapter_model.bin"):
        if (folder / name).is_file():
            return folder / CONFIG_FILE, folder / name
    raise WeightsError(f"{folder} has neither {WEIGHTS_FILE} nor adapter_model.bin")


def lora_of(halves: Mapping[tuple[str, str], Tensor], alpha: float, source: Path) -> Lora:
    """An adapter from the weights inside a Lightning file.

    Args:
        halves: A and B by module and letter.
        alpha: Not in the weights.
        source: The file.

    Raises:
        WeightsError: If they do not go together.
    """
    ranks = {tensor.shape[0] for (_, part), tensor in halves.items() if part == "A"}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": max(ranks, default=0),
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted({module.rsplit(".", 1)[-1] for module, _ in halves}),
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
    }
    checked = {
        place: checked_tensor(f"lora_{place[1]} of {place[0]}", tensor, source)
        for place, tensor in halves.items()
    }
    return _lora(source, checked, config)


def _lora(
    source: Path, halves: Mapping[tuple[str, str], Tensor], config: Mapping[str, Any]
) -> Lora:
    rank = config["r"]
    modules = sorted({module for module, _ in halves})
    if not modules:
        raise WeightsError(f"{source} has no LoRA weights")
    lines = []
    for module in modules:
        a, b = halves.get((module, "A")), halves.get((module, "B"))
        if a is None or b is None:
            lines.append(f"missing weight lora_{'A' if a is None else 'B'} of {module}")
        elif a.ndim != 2 or b.ndim != 2 or a.shape[0] != rank or b.shape[1] != rank:
            lines.append(
                f"{module}: lora_A has shape {list(a.shape)} and lora_B {list(b.shape)}, "
                f"expected [{rank}, in] and [out, {rank}]"
            )
    if lines:
        raise WeightsError(summary(source, lines), lines)
    return Lora(
        source=source,
        pairs={module: (halves[module, "A"], halves[module, "B"]) for module in modules},
        rank=rank,
        alpha=float(config["lora_alpha"]),
        rank_stabilised=bool(config.get("use_rslora")),
        transposed=bool(config.get("fan_in_fan_out")),
        config=config,
    )


def _check_config(config: Mapping[str, Any], path: Path) -> None:
    """Refuse everything that merging or serving would silently leave out."""
    rank, alpha = config.get("r"), config.get("lora_alpha")
    targets = config.get("target_modules")
    problems = {
        "peft_type": config.get("peft_type") == "LORA",
        "task_type": config.get("task_type") in (None, "CAUSAL_LM"),
        "r": isinstance(rank, int) and rank > 0,
        "lora_alpha": isinstance(alpha, (int, float)) and math.isfinite(alpha),
        "target_modules": _is_targets(targets),
        "bias": config.get("bias", "none") in (None, "none"),
        "init_lora_weights": config.get("init_lora_weights") in _INITIALISATIONS,
    }
    known = _UNDERSTOOD | _WITHOUT_EFFECT
    problems.update({name: not value for name, value in config.items() if name not in known})
    lines = [
        f"{name} is {json.dumps(config.get(name))}, which is not supported"
        for name, fine in problems.items()
        if not fine
    ]
    if lines:
        raise WeightsError(summary(path, lines), lines)
    if targets == "all-linear":
        raise WeightsError(f"{path}: target_modules 'all-linear' does not name the modules")
    if isinstance(targets, str):
        try:
            re.compile(targets)
        except re.error as error:
            raise WeightsError(f"{path}: target_modules {targets!r}: {error}") from error


def _is_targets(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name for name in names)
