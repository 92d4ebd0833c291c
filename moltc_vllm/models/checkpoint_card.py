"""``card.json`` of a checkpoint folder, and checksums that identify a checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moltc_vllm._version import __version__
from moltc_vllm.models.calibration import CALIBRATION_FILE
from moltc_vllm.models.errors import CheckpointError
from moltc_vllm.models.familiarity import FAMILIARITY_FILE
from moltc_vllm.utils.atomic_files import sha256
from moltc_vllm.utils.json_objects import read_json_object

CARD_FILE = "card.json"

# Files that only describe the checkpoint and do not affect answers.
_DESCRIPTIVE_FILES = (CARD_FILE, "README.md")


def read_card(folder: Path) -> dict[str, Any]:
    """Read ``card.json``; return an empty dictionary if it does not exist.

    Args:
        folder: Checkpoint folder.

    Raises:
        CheckpointError: If the file does not hold a JSON object.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        return {}
    try:
        return read_json_object(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write ``card.json`` with the package version and the checksums of all weight files.

    Args:
        folder: Checkpoint folder, with its weights already written.
        card: Description of the checkpoint, such as its training data and metrics.
    """
    weights = [*folder.glob("model*"), *folder.glob("adapters/*/*.safetensors")]
    checksums = {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(weights)}
    content = {"moltc_vllm": __version__, **card, "sha256": checksums}
    (folder / CARD_FILE).write_text(json.dumps(content, indent=2) + "\n")


def folder_checksum(folder: Path) -> str:
    """Compute one checksum over every file that affects answers.

    These are weights, configuration and tokenizer, but not the card, the README and hidden files.

    Args:
        folder: Checkpoint folder.
    """
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name[0] != "." and path.name not in _DESCRIPTIVE_FILES
    )
    checksums = {name: sha256(folder / name) for name in names}
    return hashlib.sha256(json.dumps(checksums).encode()).hexdigest()


def weights_checksum(folder: Path) -> str:
    """Combine the checksums of all weight files, and of the calibration, into one.

    The checksums of weights come from the card; they are computed only if the card lacks them.

    Args:
        folder: Checkpoint folder.

    Raises:
        CheckpointError: If the card cannot be read.
    """
    checksums = read_card(folder).get("sha256")
    if not isinstance(checksums, dict) or not checksums:
        paths = sorted(
            (*folder.glob("model*.safetensors"), *folder.glob("adapters/*/*.safetensors"))
        )
        checksums = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
    calibration = (folder / name for name in (CALIBRATION_FILE, FAMILIARITY_FILE))
    checksums |= {path.name: sha256(path) for path in calibration if path.is_file()}
    return hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest()
