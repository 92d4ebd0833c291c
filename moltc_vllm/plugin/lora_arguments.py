"""Adapters as arguments of vLLM.

Nothing here imports vLLM, as in the launcher: it reads its environment when it is imported.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from moltc_vllm.plugin.server.flags import FlagValues

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM's ``--max-lora-rank`` may have (``vllm.config.lora.MaxLoRARanks``)."""

_logger = logging.getLogger(__name__)


class Module(NamedTuple):
    """An adapter and the name it is asked by."""

    name: str
    path: Path
    rank: int | None = None  # None: its configuration is not at hand

    def __str__(self) -> str:
        """For ``--lora-modules``: JSON, because a folder's name may hold any character."""
        return json.dumps({"name": self.name, "path": str(self.path.absolute())})


def folder_modules(folder: Path, served: str | None = None) -> list[Module]:
    """The adapters of a checkpoint folder: ``ddi``, and of a served model ``moltc:ddi``.

    Raises:
        AdapterError: If one is not whole, or does not fit.
    """
    if not (folder / "adapters").is_dir():
        return []
    from moltc_vllm.models.adapters import load_adapters  # imports torch

    prefix = "" if served is None else f"{served}:"
    return [
        Module(f"{prefix}{adapter.name}", adapter.folder, adapter.rank)
        for adapter in load_adapters(folder)
    ]


def lora_arguments(modules: Sequence[Module], *, on_cpu: bool) -> dict[str, Any]:
    """Engine arguments for these adapters; none if there are none.

    Raises:
        AdapterError: If a rank is above vLLM's largest.
    """
    if not modules:
        return {}
    arguments: dict[str, Any] = {"enable_lora": True}
    rank = max(module.rank or 0 for module in modules)
    if rank:
        _check_ranks(modules, RANKS[-1], "the largest that vLLM serves")
        arguments["max_lora_rank"] = next(allowed for allowed in RANKS if allowed >= rank)
    # vLLM 0.32 on CPU marks rows without an adapter with -1 and then indexes the adapters' slots
    # with it: a base-model request in a batch with others silently gets the last slot's adapter
    # (vllm/lora/ops/torch_ops/lora_ops.py). One slot more, never filled, holds zeros.
    # Goes when 0.33 is the oldest release we support.
    slots = len(modules) + on_cpu
    # All stay in memory: one that had been put out would be read again in the middle of serving.
    return {**arguments, "max_loras": slots, "max_cpu_loras": slots}


def served_modules(
    folder: str, said: FlagValues, *, on_cpu: bool
) -> tuple[dict[str, Any], list[str]]:
    """How a server gets the folder's adapters and those that the user names.

    Args:
        folder: Checkpoint folder, as it was given.
        said: What the user says.
        on_cpu: Whether vLLM is the CPU build.

    Returns:
        Engine arguments, and values for ``--lora-modules``.

    Raises:
        AdapterError: If one of the folder's is not whole, does not fit, or is above the user's
            ``--max-lora-rank``.
    """
    if list(said.get("enable-lora", [])) == ["false"]:
        return {}, []
    values = said.get("lora-modules", [])
    own = [module for module in map(_read, values) if module is not None]
    taken = {module.name for module in own}
    served = next(iter(said.get("served-model-name", [])), folder)
    ours = [one for one in folder_modules(Path(folder), served) if one.name not in taken]
    arguments = lora_arguments([*ours, *own], on_cpu=on_cpu)
    if arguments:
        _fit(arguments, [*ours, *own], said, on_cpu)
    return arguments, [*map(str, ours), *values]


def _fit(
    arguments: dict[str, Any], modules: Sequence[Module], said: FlagValues, on_cpu: bool
) -> None:
    """Fit our numbers to those that the user gives, which win."""
    given = {
        name: int(said[name][0])
        for name in ("max-loras", "max-cpu-loras", "max-lora-rank")
        if said.get(name) and said[name][0].isdecimal()
    }
    if "max-lora-rank" in given:
        _check_ranks(modules, given["max-lora-rank"], "and --max-lora-rank is")
    # vLLM wants at least as many in memory as in a batch.
    slots = given.get("max-loras", arguments["max_loras"])
    arguments["max_cpu_loras"] = max(slots, arguments["max_cpu_loras"])
    slots = min(slots, given.get("max-cpu-loras", slots))
    arguments["max_loras"] = slots
    if on_cpu and slots <= len(modules):
        _logger.warning(
            "%d adapters with --max-loras %d: vLLM 0.32 on CPU may answer requests of the base "
            "model with an adapter; --max-loras %d is safe",
            *(len(modules), slots, len(modules) + 1),
        )


def _check_ranks(modules: Sequence[Module], largest: int, what: str) -> None:
    from moltc_vllm.models.adapters import AdapterError

    for module in modules:
        if (module.rank or 0) > largest:
            raise AdapterError(f"adapter {module.name!r} has rank {module.rank}, {what} {largest}")


def _read(value: str) -> Module | None:
    """A value of the user's ``--lora-modules``; what cannot be read vLLM will complain of."""
    from moltc_vllm.models.adapters import declared_rank

    name, equals, path = value.partition("=")
    if not equals or "," in value:  # vLLM's own rule: else it is JSON
        try:
            content = json.loads(value)
            name, path = content["name"], content["path"]
        except (ValueError, KeyError, TypeError):
            return None
    return Module(name, Path(path), declared_rank(Path(path)))
