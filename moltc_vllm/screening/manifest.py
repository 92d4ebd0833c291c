"""``manifest.json``: what a folder of answers is the answer to."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moltc_vllm._version import __version__
from moltc_vllm.utils.atomic_files import new_file

MANIFEST = "manifest.json"
_FORMAT = 1


class ManifestError(ValueError):
    """A folder holds another screen, or none that can be read; the message says what differs."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Write to a folder alone; the kernel ends it with this process, however that ends.

    Args:
        folder: Is made, if there is none.

    Raises:
        ManifestError: If another one is writing there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ManifestError(f"{folder} is being written by another process") from None
        for unfinished in folder.glob(".*.partial"):  # by a process that was killed
            unfinished.unlink(missing_ok=True)
        yield


def identity_of(settings: Mapping[str, Any]) -> str:
    """A checksum of everything that decides the rows and answers of a screen."""
    text = json.dumps({"format": _FORMAT, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def open_manifest(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Write a new screen's manifest, unless it is there.

    Args:
        folder: Of the answers; is made, if there is none.
        settings: As of `identity_of`; values of JSON.

    Returns:
        Whether the screen goes on.

    Raises:
        ManifestError: See `check_manifest`.
    """
    if check_manifest(folder, settings):
        return True
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": _FORMAT, "moltc_vllm": __version__, "screen": dict(settings)}
    with new_file(folder / MANIFEST) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return False


def check_manifest(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder has this very screen; ``False`` if there is none in it.

    Raises:
        ManifestError: If it is another one, naming what differs; or if the folder has something
            else in it.
    """
    if not (folder / MANIFEST).exists():
        if folder.exists() and any(one.name[0] != "." for one in folder.iterdir()):
            raise ManifestError(f"{folder} is not empty and has no {MANIFEST}: name another folder")
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
