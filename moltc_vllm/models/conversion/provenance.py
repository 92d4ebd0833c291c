"""Where a converted checkpoint is from, for its ``card.json``: no paths, no dates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from moltc_vllm.utils.atomic_files import sha256


def input_record(option: str, path: Path, inside: Path | None = None) -> dict[str, str]:
    """Name and checksum of an input file.

    Args:
        option: What it was given as.
        path: The file.
        inside: The folder that was given, if the file is one of its.
    """
    name = path.name if inside is None else f"{folder_name(inside)}/{path.name}"
    return {"option": option, "file": name, "sha256": sha256(path)}


def folder_name(folder: Path) -> str:
    """A folder's own name, also where it was given as ``.``."""
    return folder.resolve().name


def plain_json(raw: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """The part of a mapping that is plain JSON, and the names of what is not.

    Of absolute paths only the last component is kept.
    """
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    for name, value in raw.items():
        try:
            kept[str(name)] = _plain(value)
        except TypeError:
            left_out.append(str(name))
    return kept, sorted(left_out)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, str):
        return _without_folders(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {_without_folders(name): _plain(item) for name, item in value.items()}
    raise TypeError(type(value).__name__)


def _without_folders(text: str) -> str:
    if PurePosixPath(text).is_absolute() or text.startswith("~"):
        return PurePosixPath(text).name
    if PureWindowsPath(text).is_absolute():
        return PureWindowsPath(text).name
    return text
