"""Engine arguments for the adapters of a checkpoint folder.

This module must not import vLLM, which reads its environment when it is imported.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Allowed values of vLLM's ``--max-lora-rank`` (``vllm.config.lora.MaxLoRARanks``)."""


class ServedAdapter(NamedTuple):
    """An adapter and the model name that selects it.

    Attributes:
        name: Name of the adapter; on a server the model name in requests.
        path: Folder of the adapter.
        rank: Rank of its matrices; ``None`` if its configuration cannot be read.
    """

    name: str
    path: Path
    rank: int | None = None

    def __str__(self) -> str:
        """Value of ``--lora-modules``; JSON, because a folder name may hold any character."""
        return json.dumps({"name": self.name, "path": str(self.path.absolute())})


def folder_adapters(folder: Path, served_model_name: str | None = None) -> list[ServedAdapter]:
    """List the adapters of a checkpoint folder.

    Args:
        folder: Checkpoint folder.
        served_model_name: Name of the base model on a server. It prefixes the adapters' names,
            as in ``moltc:ddi``; without it they are the folders' names, as in ``ddi``.

    Raises:
        AdapterError: If an adapter is incomplete or does not fit the base model.
    """
    if not (folder / "adapters").is_dir():
        return []
    from moltc_vllm.models.adapters import load_adapters  # imports torch

    prefix = "" if served_model_name is None else f"{served_model_name}:"
    return [
        ServedAdapter(f"{prefix}{adapter.name}", adapter.folder, adapter.rank)
        for adapter in load_adapters(folder)
    ]


def lora_arguments(adapters: Sequence[ServedAdapter], *, on_cpu: bool) -> dict[str, Any]:
    """Return the engine arguments that let vLLM load these adapters.

    Args:
        adapters: Adapters to serve; without any, no arguments are needed.
        on_cpu: Whether vLLM is the CPU build.

    Raises:
        AdapterError: If a rank is above vLLM's largest.
    """
    if not adapters:
        return {}
    arguments: dict[str, Any] = {"enable_lora": True}
    rank = max(adapter.rank or 0 for adapter in adapters)
    if rank:
        check_ranks(adapters, RANKS[-1], "the largest that vLLM serves")
        arguments["max_lora_rank"] = next(allowed for allowed in RANKS if allowed >= rank)
    # vLLM 0.32 on CPU marks rows without an adapter with -1 and then indexes the adapters' slots
    # with it: a base-model request in a batch with others silently gets the last slot's adapter
    # (vllm/lora/ops/torch_ops/lora_ops.py). One additional slot, never filled, holds zeros.
    # Remove it when 0.33 is the oldest supported release.
    slots = len(adapters) + on_cpu
    # All adapters stay in memory: an evicted one would have to be read again while serving.
    return {**arguments, "max_loras": slots, "max_cpu_loras": slots}


def check_ranks(adapters: Sequence[ServedAdapter], largest: int, limit_name: str) -> None:
    """Check that no adapter's rank is above a limit.

    Args:
        adapters: Adapters to check.
        largest: Largest allowed rank.
        limit_name: Words that name the limit in the error message, in front of its value.

    Raises:
        AdapterError: If a rank is above the limit.
    """
    from moltc_vllm.models.adapters import AdapterError  # imports torch

    for adapter in adapters:
        if (adapter.rank or 0) > largest:
            raise AdapterError(
                f"adapter {adapter.name!r} has rank {adapter.rank}, {limit_name} {largest}"
            )
