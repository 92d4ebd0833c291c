"""Flags of ``vllm serve`` that the user sets, on the command line or in its ``--config`` file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from moltc_vllm.utils.json_objects import parse_json_object
from moltc_vllm.utils.standardization import check_standardization

FlagValues = Mapping[str, Sequence[str]]
"""Values of each flag by its name without leading dashes; ``["false"]`` for ``--no-NAME``."""


def parse_flags(arguments: Sequence[str]) -> FlagValues:
    """Parse flags with vLLM's precedence: the command line overrides the configuration file.

    Args:
        arguments: Arguments of ``vllm serve`` after the checkpoint folder.
    """
    flags: dict[str, list[str]] = {}
    name = None
    for argument in arguments:
        if argument.startswith("-"):
            name, equals, value = argument.partition("=")
            name = _normalize(name)
            flags[name] = [value] if equals else []
        elif name is not None:
            flags[name].append(argument)
    return {**_read_config_file(flags.get("config", [])), **_negated_flags(flags), **flags}


def remove_flag(name: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments without a flag and its values.

    Args:
        name: Name of the flag without leading dashes.
        arguments: Command-line arguments.
    """
    kept = []
    is_removed = False
    for argument in arguments:
        if argument.startswith("-"):
            is_removed = _normalize(argument.partition("=")[0]) == name
        if not is_removed:
            kept.append(argument)
    return kept


def replace_standardize(arguments: Sequence[str]) -> list[str]:
    """Replace our flag ``--standardize MODE`` by vLLM's flag for a setting of the checkpoint.

    Args:
        arguments: Command-line arguments.

    Raises:
        ValueError: If the mode is unknown, or ``--hf-overrides`` is not a JSON object.
    """
    flags = parse_flags(arguments)
    if "standardize" not in flags:
        return list(arguments)
    mode = check_standardization("".join(flags["standardize"]))
    # vLLM has no flag that changes one setting and keeps those of an earlier --hf-overrides.
    overrides = {"standardization": mode}
    if given := flags.get("hf-overrides"):
        overrides = {**parse_json_object("".join(given), "--hf-overrides"), **overrides}
    kept = remove_flag("hf-overrides", remove_flag("standardize", arguments))
    return [*kept, "--hf-overrides", json.dumps(overrides)]


def _read_config_file(paths: Sequence[str]) -> FlagValues:
    path = Path(paths[0]) if paths else None
    content = yaml.safe_load(path.read_text()) if path is not None and path.is_file() else None
    flags = {}
    for key, value in (content or {}).items():
        values = value if isinstance(value, list) else [value]
        flags[_normalize(str(key))] = [
            str(item).lower() if isinstance(item, bool) else str(item) for item in values
        ]
    return {**_negated_flags(flags), **flags}


def _negated_flags(flags: FlagValues) -> FlagValues:
    """Return ``enable-lora: ["false"]`` for every ``no-enable-lora``."""
    return {name.removeprefix("no-"): ["false"] for name in flags if name.startswith("no-")}


def _normalize(name: str) -> str:
    return name.lstrip("-").replace("_", "-")
