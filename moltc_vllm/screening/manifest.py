"""``manifest.json``: what a folder of answers is the answer to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moltc_vllm import __version__
from moltc_vllm.files import new_file

MANIFEST = "manifest.json"
_FORMAT = 1


class ManifestError(ValueError):
    """A folder holds another screen, or none that can be read; the message says what differs."""


def identity_of(settings: Mapping[str, Any]) -> str:
    """A checksum of everything that decides the rows and answers of a screen."""
    text = json.dumps({"format": _FORMAT, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def open_manifest(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Write a new screen's manifest, or see that the folder's one is of the same screen.

    Args:
        folder: Of the answers; is made, if there is none.
        settings: As of `identity_of`; values of JSON.

    Returns:
        Whether the screen goes on.

    Raises:
        ManifestError: If it is another one, naming what differs; or if the folder has something
            else in it.
    """
    path = folder / MANIFEST
    if not path.exists():
        if folder.exists() and any(one.name[0] != "." for one in folder.iterdir()):
            raise ManifestError(f"{folder} is not empty and has no {MANIFEST}: name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        content = {"format": _FORMAT, "moltc_vllm": __version__, "screen": dict(settings)}
        with new_file(path) as partial:
            partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
        return False
    before = read_manifest(folder)
    told = json.loads(json.dumps(dict(settings)))
    if differ := _differences(before["screen"], told):
        raise ManifestError(f"{folder} holds another screen: {'; '.join(differ)}")
    return True


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `open_manifest` wrote: ``moltc_vllm``, its version, and ``screen``, the settings.

    Raises:
        ManifestError: If it cannot be read, or is of another format.
    """
    path = folder / MANIFEST
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        kind, _, _ = content["format"], content["screen"], content["moltc_vllm"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{path} cannot be read") from error
    if kind != _FORMAT:
        raise ManifestError(f"{path} is of format {kind}, not {_FORMAT}: screen into a new folder")
    return content


def _differences(before: Any, after: Any, name: str = "") -> list[str]:
    """One line for each value that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        inside = f"{name}." if name else ""
        return [
            line
            for key in dict.fromkeys((*before, *after))
            for line in _differences(before.get(key), after.get(key), f"{inside}{key}")
        ]
    if before == after:
        return []
    return [f"{name} was {_short(before)}, is {_short(after)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:16]}…{text[-8:]}"
