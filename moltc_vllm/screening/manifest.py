"""``manifest.json``: the settings that produced an output folder; checked on resume."""

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
from moltc_vllm.utils.json_objects import read_json_object
from moltc_vllm.utils.standardization import AS_DRAWN

MANIFEST = "manifest.json"
_FORMAT = 1


class ManifestError(ValueError):
    """A folder cannot be used for a screen: other settings, other files, or another process."""


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on the folder; the OS releases it if the process dies.

    Args:
        folder: Folder to lock; created if missing.

    Raises:
        ManifestError: If another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ManifestError(f"{folder} is being written by another process") from None
        for partial in folder.glob(".*.partial"):  # left by a process that was killed
            partial.unlink(missing_ok=True)
        yield


def identity_of(settings: Mapping[str, Any]) -> str:
    """Return a checksum of all settings that determine the rows and answers of a screen."""
    text = json.dumps({"format": _FORMAT, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def open_manifest(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Write the manifest of a new screen, or check the one of a screen to resume.

    Args:
        folder: Output folder; created if missing.
        settings: Settings of the screen, as JSON values.

    Returns:
        Whether the folder already holds this screen.

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
    """Check that a folder can hold the output of a screen.

    Args:
        folder: Output folder.
        settings: Settings of the screen, as JSON values.

    Returns:
        Whether the folder already holds this screen; ``False`` if it is empty.

    Raises:
        ManifestError: If the folder holds a screen with other settings, which are listed, or files
            that do not belong to a screen.
    """
    if not (folder / MANIFEST).exists():
        if folder.exists() and any(path.name[0] != "." for path in folder.iterdir()):
            raise ManifestError(
                f"{folder} is not empty and has no {MANIFEST}: choose another folder"
            )
        return False
    recorded = read_manifest(folder)["screen"]
    current = json.loads(json.dumps(dict(settings)))
    if differences := _differences(_with_defaults(recorded), _with_defaults(current)):
        raise ManifestError(
            f"{folder} holds a screen with different settings: {'; '.join(differences)}"
        )
    return True


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a manifest: ``moltc_vllm``, the version that wrote it, and ``screen``, the settings.

    Raises:
        ManifestError: If it cannot be read or has another format.
    """
    path = folder / MANIFEST
    try:
        content = read_json_object(path)
        version, _, _ = content["format"], content["screen"], content["moltc_vllm"]
    except KeyError as error:
        raise ManifestError(f"{path} lacks the key {error}") from error
    except ValueError as error:
        raise ManifestError(str(error)) from error
    if version != _FORMAT:
        raise ManifestError(
            f"{path} has format {version}, this version writes {_FORMAT}: choose another folder"
        )
    return content


def _with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add settings that are recorded only if they differ from version 0.1."""
    model = settings.get("model")
    if not isinstance(model, dict):
        return dict(settings)
    return {**settings, "model": {"standardization": AS_DRAWN, **model}}


def _differences(recorded: Any, current: Any, name: str = "") -> list[str]:
    """Return one phrase for each value that differs, with the path of its key."""
    if isinstance(recorded, dict) and isinstance(current, dict):
        prefix = f"{name}." if name else ""
        return [
            phrase
            for key in dict.fromkeys((*recorded, *current))
            for phrase in _differences(recorded.get(key), current.get(key), f"{prefix}{key}")
        ]
    if recorded == current:
        return []
    return [f"{name} was {_short_json(recorded)}, is {_short_json(current)}"]


def _short_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:16]}…{text[-8:]}"
