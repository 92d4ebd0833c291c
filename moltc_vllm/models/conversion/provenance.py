"""Provenance records for ``card.json``: file names and checksums, without paths or dates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from moltc_vllm.utils.atomic_files import sha256


def input_record(option: str, path: Path, folder: Path | None = None) -> dict[str, str]:
    """Return the name and checksum of an input file.

    Args:
        option: Command-line option that named the file or its folder.
        path: Input file.
        folder: Folder given by the option, if it was not the file itself.
    """
    name = path.name if folder is None else f"{folder_name(folder)}/{path.name}"
    return {"option": option, "file": name, "sha256": sha256(path)}


def folder_name(folder: Path) -> str:
    """Return a folder's name, also for relative paths such as ``.``."""
    return folder.resolve().name


def plain_json(raw: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """Split a mapping into entries that JSON can represent and the keys of all others.

    Absolute paths are reduced to their last component.
    """
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    for name, value in raw.items():
        try:
            kept[str(name)] = _to_json(value)
        except TypeError:
            left_out.append(str(name))
    return kept, sorted(left_out)


def _to_json(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, str):
        return _strip_folders(value)
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {_strip_folders(name): _to_json(item) for name, item in value.items()}
    raise TypeError(type(value).__name__)


def _strip_folders(text: str) -> str:
    if PurePosixPath(text).is_absolute() or text.startswith("~"):
        return PurePosixPath(text).name
    if PureWindowsPath(text).is_absolute():
        return PureWindowsPath(text).name
    return text
