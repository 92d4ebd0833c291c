"""Random adapters in PEFT's file layout."""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

from moltc_vllm.models import load_config
from moltc_vllm.models.adapters import linear_layer_shapes


def write_adapter(
    checkpoint: Path,
    name: str,
    targets: list[str],
    *,
    rank: int = 4,
    strength: float = 1.0,
    seed: int = 0,
    **settings,
) -> Path:
    """Write ``adapters/<name>`` into a checkpoint folder.

    Args:
        checkpoint: Checkpoint folder.
        name: Name of the adapter.
        targets: Last components of the names of the adapted linear layers, e.g. ``q_proj``.
        rank: Rank of every layer.
        strength: Size of the change relative to a random weight of the tiny presets.
        seed: Seed of the weights.
        **settings: Further keys of ``adapter_config.json``.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    shapes = linear_layer_shapes(load_config(checkpoint).text_config)
    for module, (out_size, in_size) in shapes.items():
        if module.rpartition(".")[2] in targets:
            key = f"base_model.model.{module}.lora_"
            size = 0.2 * strength / math.sqrt(rank)
            tensors[f"{key}A.weight"] = torch.randn(rank, in_size, generator=generator)
            tensors[f"{key}B.weight"] = torch.randn(out_size, rank, generator=generator) * size
    folder = checkpoint / "adapters" / name
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"bias": "none"} | settings))
    return folder
