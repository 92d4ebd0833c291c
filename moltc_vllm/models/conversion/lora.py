"""LoRA adapters, read from PEFT folders or from the Lightning files of newer MolCA code.

Source: LoRA (Hu et al. 2021); folder format of PEFT 0.3 to 0.18.
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
from moltc_vllm.models.conversion.pickles import read_state_dict
from moltc_vllm.models.language_model import LanguageLayout
from moltc_vllm.models.weights import WeightsError, summarize_mismatches, validated_tensor

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")

# Settings that do not affect how the weights are applied.
_IGNORED = frozenset(
    {
        *("base_model_name_or_path", "revision", "auto_mapping", "peft_version", "inference_mode"),
        *("lora_dropout", "megatron_core", "qalora_group_size"),
    }
)
_SUPPORTED = frozenset(
    {
        *("peft_type", "task_type", "r", "lora_alpha", "target_modules", "fan_in_fan_out"),
        *("use_rslora", "bias", "init_lora_weights"),
    }
)
# Initializations that do not modify the base model, as PiSSA and LoftQ do.
_INITIALIZATIONS = (None, True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """Low-rank update ``scale * B A`` of some matrices of the language model.

    Attributes:
        source: File or folder of the adapter, for error messages.
        pairs: Matrices A ``[r, in]`` and B ``[out, r]`` of each module.
        rank: Rank r of the update.
        alpha: Numerator of ``scale``.
        rank_stabilized: Whether ``scale`` divides by the square root of r instead of r.
        transposed: Whether the base model stores its weights as ``[in, out]``.
        config: Content of ``adapter_config.json``.
    """

    source: Path
    pairs: Mapping[str, tuple[Tensor, Tensor]]
    rank: int
    alpha: float
    rank_stabilized: bool
    transposed: bool
    config: Mapping[str, Any]

    @property
    def scale(self) -> float:
        """Factor of the product B A."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)

    def check(self, base: LanguageLayout) -> None:
        """Check that the adapter fits a language model.

        Args:
            base: Names and shapes of the language model's weights.

        Raises:
            WeightsError: If a module is unknown, has another shape, or is a target without
                weights.
        """
        lines = [line for module in self.pairs if (line := self._mismatch(module, base))]
        lines += [
            f"missing weights for {module}, which target_modules names"
            for module in (key.removesuffix(".weight") for key in base.shapes)
            if len(base.shapes.get(f"{module}.weight", ())) == 2
            and module not in self.pairs
            and self._targets(module)
        ]
        if lines:
            raise WeightsError(summarize_mismatches(self.source, lines), lines)

    def merge(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Add the update to a stream of the language model's weights, keeping their dtype.

        Args:
            weights: Names and tensors of the language model.

        Raises:
            WeightsError: If a merged weight is not finite in its dtype.
        """
        for key, tensor in weights:
            pair = self.pairs.get(key.removesuffix(".weight"))
            if pair is not None and key.endswith(".weight"):
                tensor = self._merge_pair(tensor, *pair)
                if not torch.isfinite(tensor).all():
                    raise WeightsError(
                        f"{self.source}: {key} is not finite in {tensor.dtype} after merging"
                    )
            yield key, tensor

    def write(self, folder: Path, base_model: str) -> None:
        """Write a PEFT folder, keeping the dtype of every tensor.

        Args:
            folder: Folder to create; must not exist.
            base_model: Value of ``base_model_name_or_path``.
        """
        folder.mkdir(parents=True)
        config = {**self.config, "base_model_name_or_path": base_model, "inference_mode": True}
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        tensors = {
            f"base_model.model.{module}.lora_{letter}.weight": tensor.contiguous()
            for module, pair in self.pairs.items()
            for letter, tensor in zip("AB", pair, strict=True)
        }
        save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})

    def _merge_pair(self, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
        # In float64 the only significant rounding is the final one to the weight's dtype.
        wide = weight.to(torch.float64, copy=True)
        target = wide.T if self.transposed else wide
        target.addmm_(b.double(), a.double(), alpha=self.scale)
        return wide.to(weight.dtype)

    def _mismatch(self, module: str, base: LanguageLayout) -> str | None:
        """Return why a module's matrices do not fit the language model, or None."""
        key = f"{module}.weight"
        shape = base.shapes.get(key)
        if shape is None or len(shape) != 2:
            return f"the language model has no matrix {key}"
        if self.transposed != (key in base.transposed):
            return f"fan_in_fan_out is {self.transposed}, but {key} is stored the other way"
        a, b = self.pairs[module]
        actual, expected = (b.shape[0], a.shape[1]), tuple(shape)[:: -1 if self.transposed else 1]
        if actual != expected:
            return f"{module}: B A has shape {list(actual)}, expected {list(expected)}"
        return None if self._targets(module) else f"{module} is not among target_modules"

    def _targets(self, module: str) -> bool:
        """Return whether ``target_modules`` includes a module, by PEFT's rules."""
        targets = self.config["target_modules"]
        if isinstance(targets, str):
            return re.fullmatch(targets, module) is not None
        return any(module == name or module.endswith(f".{name}") for name in targets)


def read_lora(folder: Path) -> LoraAdapter:
    """Read a PEFT folder.

    Raises:
        WeightsError: If a file is missing or damaged, a weight is not valid, or the configuration
            has a setting that this package does not support.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not a folder")
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise WeightsError(f"{folder} is not a LoRA folder: it has no {CONFIG_FILE}")
    config = read_json(path)
    _check_config(config, path)
    _, weights_path = lora_files(folder)
    read = read_safetensors if weights_path.suffix == ".safetensors" else read_state_dict
    matrices = {}
    superfluous = []
    for key, tensor in read(weights_path).items():
        match = _KEY.fullmatch(key)
        if match is None:
            superfluous.append(f"superfluous weight {key}")
        else:
            matrices[match[1], match[2]] = validated_tensor(key, tensor, weights_path)
    if superfluous:
        raise WeightsError(summarize_mismatches(weights_path, superfluous), superfluous)
    return _build_adapter(folder, matrices, config)


def lora_files(folder: Path) -> tuple[Path, Path]:
    """Return the configuration file and the weight file of a PEFT folder.

    Raises:
        WeightsError: If the folder has no weights.
    """
    for name in (WEIGHTS_FILE, "adapter_model.bin"):
        if (folder / name).is_file():
            return folder / CONFIG_FILE, folder / name
    raise WeightsError(f"{folder} has neither {WEIGHTS_FILE} nor adapter_model.bin")


def lora_from_weights(
    matrices: Mapping[tuple[str, str], Tensor], alpha: float, source: Path
) -> LoraAdapter:
    """Build an adapter from the LoRA weights of a Lightning file.

    Args:
        matrices: LoRA matrices by module name and letter (A or B).
        alpha: Value of alpha, which the weights do not determine.
        source: Lightning file, for error messages.

    Raises:
        WeightsError: If the matrices are inconsistent.
    """
    ranks = {tensor.shape[0] for (_, letter), tensor in matrices.items() if letter == "A"}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": max(ranks, default=0),
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted({module.rsplit(".", 1)[-1] for module, _ in matrices}),
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
    }
    validated = {
        (module, letter): validated_tensor(f"lora_{letter} of {module}", tensor, source)
        for (module, letter), tensor in matrices.items()
    }
    return _build_adapter(source, validated, config)


def _build_adapter(
    source: Path, matrices: Mapping[tuple[str, str], Tensor], config: Mapping[str, Any]
) -> LoraAdapter:
    """Pair the matrices of each module and check their shapes."""
    rank = config["r"]
    modules = sorted({module for module, _ in matrices})
    if not modules:
        raise WeightsError(f"{source} has no LoRA weights")
    lines = []
    for module in modules:
        a, b = matrices.get((module, "A")), matrices.get((module, "B"))
        if a is None or b is None:
            lines.append(f"missing weight lora_{'A' if a is None else 'B'} of {module}")
        elif a.ndim != 2 or b.ndim != 2 or a.shape[0] != rank or b.shape[1] != rank:
            lines.append(
                f"{module}: lora_A has shape {list(a.shape)} and lora_B {list(b.shape)}, "
                f"expected [{rank}, in] and [out, {rank}]"
            )
    if lines:
        raise WeightsError(summarize_mismatches(source, lines), lines)
    return LoraAdapter(
        source=source,
        pairs={module: (matrices[module, "A"], matrices[module, "B"]) for module in modules},
        rank=rank,
        alpha=float(config["lora_alpha"]),
        rank_stabilized=bool(config.get("use_rslora")),
        transposed=bool(config.get("fan_in_fan_out")),
        config=config,
    )


def _check_config(config: Mapping[str, Any], path: Path) -> None:
    """Raise `WeightsError` for settings that merging and serving would otherwise ignore."""
    rank, alpha = config.get("r"), config.get("lora_alpha")
    targets = config.get("target_modules")
    supported = {
        "peft_type": config.get("peft_type") == "LORA",
        "task_type": config.get("task_type") in (None, "CAUSAL_LM"),
        "r": isinstance(rank, int) and rank > 0,
        "lora_alpha": isinstance(alpha, (int, float)) and math.isfinite(alpha),
        "target_modules": _names_modules(targets),
        "bias": config.get("bias", "none") in (None, "none"),
        "init_lora_weights": config.get("init_lora_weights") in _INITIALIZATIONS,
    }
    # An unknown setting is harmless only if it is switched off.
    known = _SUPPORTED | _IGNORED
    supported.update({name: not value for name, value in config.items() if name not in known})
    lines = [
        f"{name} is {json.dumps(config.get(name))}, which is not supported"
        for name, is_supported in supported.items()
        if not is_supported
    ]
    if lines:
        raise WeightsError(summarize_mismatches(path, lines), lines)
    if targets == "all-linear":
        raise WeightsError(
            f"{path}: target_modules 'all-linear' is not supported; list the modules"
        )
    if isinstance(targets, str):
        try:
            re.compile(targets)
        except re.error as error:
            raise WeightsError(f"{path}: target_modules {targets!r}: {error}") from error


def _names_modules(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name for name in names)
