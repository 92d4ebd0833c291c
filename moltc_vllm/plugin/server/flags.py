"""What the user says to ``vllm serve``: on the command line, and in its ``--config`` file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

FlagValues = Mapping[str, Sequence[str]]
"""Values by flag, the flag without its leading dashes; ``["false"]`` where it is switched off."""


def parse_flags(arguments: Sequence[str]) -> FlagValues:
    """Read flags as vLLM will: the command line goes before the file."""
    said: dict[str, list[str]] = {}
    flag = None
    for argument in arguments:
        if argument.startswith("-"):
            flag, equals, value = argument.partition("=")
            flag = _plain(flag)
            said[flag] = [value] if equals else []
        elif flag is not None:
            said[flag].append(argument)
    return {**_in_file(said.get("config", [])), **_switched_off(said), **said}


def without(flag: str, arguments: Sequence[str]) -> list[str]:
    """Arguments without a flag and its values."""
    kept = []
    inside = False
    for argument in arguments:
        if argument.startswith("-"):
            inside = _plain(argument.partition("=")[0]) == flag
        if not inside:
            kept.append(argument)
    return kept


def _in_file(paths: Sequence[str]) -> FlagValues:
    path = Path(paths[0]) if paths else None
    content = yaml.safe_load(path.read_text()) if path is not None and path.is_file() else None
    said = {}
    for key, value in (content or {}).items():
        values = value if isinstance(value, list) else [value]
        said[_plain(str(key))] = [
            str(one).lower() if isinstance(one, bool) else str(one) for one in values
        ]
    return {**_switched_off(said), **said}


def _switched_off(said: FlagValues) -> FlagValues:
    """``--no-enable-lora`` speaks of ``--enable-lora``."""
    return {flag.removeprefix("no-"): ["false"] for flag in said if flag.startswith("no-")}


def _plain(flag: str) -> str:
    return flag.lstrip("-").replace("_", "-")
