"""Flags of ``vllm serve`` for the adapters of the checkpoint folder and of the user.

This module must not import vLLM, which reads its environment when it is imported.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from moltc_vllm.plugin.engine.lora_arguments import (
    ServedAdapter,
    check_ranks,
    folder_adapters,
    lora_arguments,
)
from moltc_vllm.plugin.server.flags import FlagValues

_LIMIT_FLAGS = ("max-loras", "max-cpu-loras", "max-lora-rank")

_logger = logging.getLogger(__name__)


def lora_flags(folder: str, flags: FlagValues, *, on_cpu: bool) -> tuple[dict[str, Any], list[str]]:
    """Determine the flags that serve the folder's adapters beside those that the user names.

    Args:
        folder: Checkpoint folder, as the user spells it.
        flags: Flags that the user sets.
        on_cpu: Whether vLLM is the CPU build.

    Returns:
        Engine arguments, and all values for ``--lora-modules``.

    Raises:
        AdapterError: If an adapter of the folder is incomplete, does not fit the base model, or
            has a rank above the user's ``--max-lora-rank``.
    """
    if list(flags.get("enable-lora", [])) == ["false"]:
        return {}, []
    user_values = flags.get("lora-modules", [])
    user_adapters = [adapter for adapter in map(_parse_value, user_values) if adapter is not None]
    user_names = {adapter.name for adapter in user_adapters}
    served_model_name = next(iter(flags.get("served-model-name", [])), folder)
    own_adapters = [
        adapter
        for adapter in folder_adapters(Path(folder), served_model_name)
        if adapter.name not in user_names
    ]
    adapters = [*own_adapters, *user_adapters]
    arguments = lora_arguments(adapters, on_cpu=on_cpu)
    if arguments:
        limits = _user_limits(flags)
        if "max-lora-rank" in limits:
            check_ranks(adapters, limits["max-lora-rank"], "and --max-lora-rank is")
        arguments |= _slot_counts(arguments, limits)
        if on_cpu:
            _warn_of_missing_slot(arguments["max_loras"], len(adapters))
    return arguments, [*map(str, own_adapters), *user_values]


def _user_limits(flags: FlagValues) -> dict[str, int]:
    """Return the limits that the user sets; vLLM's own parser reports malformed ones."""
    return {
        name: int(flags[name][0])
        for name in _LIMIT_FLAGS
        if flags.get(name) and flags[name][0].isdecimal()
    }


def _slot_counts(arguments: dict[str, Any], limits: dict[str, int]) -> dict[str, int]:
    """Adjust our slot counts to the user's limits, because vLLM needs max_cpu_loras >= max_loras.

    vLLM takes the user's own value of a flag; only the other count is adjusted to it.
    """
    slots = limits.get("max-loras", arguments["max_loras"])
    cpu_slots = max(slots, arguments["max_cpu_loras"])
    return {
        "max_loras": min(slots, limits.get("max-cpu-loras", slots)),
        "max_cpu_loras": cpu_slots,
    }


def _warn_of_missing_slot(slots: int, adapter_count: int) -> None:
    """Warn if no slot stays empty on CPU, see `lora_arguments`."""
    if slots <= adapter_count:
        _logger.warning(
            "%d adapters with --max-loras %d: vLLM 0.32 on CPU may answer requests of the base "
            "model with an adapter; --max-loras %d is safe",
            *(adapter_count, slots, adapter_count + 1),
        )


def _parse_value(value: str) -> ServedAdapter | None:
    """Parse a value of the user's ``--lora-modules``; vLLM reports malformed ones."""
    from moltc_vllm.models.adapters import declared_rank  # imports torch

    name, equals, path = value.partition("=")
    if not equals or "," in value:  # the rule by which vLLM recognizes JSON
        try:
            content = json.loads(value)
            name, path = content["name"], content["path"]
        except (ValueError, KeyError, TypeError):
            return None
    return ServedAdapter(name, Path(path), declared_rank(Path(path)))
