"""More projectors for a checkpoint that has fewer: each begins as a copy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from moltc_vllm.models.checkpoint import (
    CARD_FILE,
    INDEX_FILE,
    CheckpointError,
    expected_weights,
    load_config,
    read_card,
    read_weights,
    write_card,
    write_weights,
)
from moltc_vllm.models.config import MoltcConfig, ProjectorSharing
from moltc_vllm.models.conversion.provenance import folder_name, input_record
from moltc_vllm.models.projector import projector_names
from moltc_vllm.models.weights import WeightsError, summary, weight_mismatches
from moltc_vllm.utils.atomic_files import ensure_free, new_folder


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What became of a conversion."""

    folder: Path
    config: MoltcConfig
    tensors: int
    card: dict[str, Any]  # without checksums of what was written


def check_sharing(sharing: str) -> None:
    """Refuse what is no way of sharing projectors.

    Raises:
        ValueError: If it is none.
    """
    known = get_args(ProjectorSharing)
    if sharing not in known:
        raise ValueError(f"projectors {sharing!r} is none of {', '.join(known)}")


def split_projectors(
    checkpoint: Path,
    out: Path,
    projector_sharing: ProjectorSharing,
    *,
    tasks: Sequence[str] | None = None,
) -> ConversionReport:
    """Copy a checkpoint folder with a projector for each role, or each task and role.

    Everything else stays as it is: weights, tokenizer, adapters and other files.

    Args:
        checkpoint: One of our folders.
        out: Folder to write; must not exist, or be empty.
        projector_sharing: ``role`` or ``task_role``.
        tasks: Names of the tasks that the copy is for; default: those of the checkpoint.

    Raises:
        CheckpointError: If ``out`` is in use or inside the checkpoint, or the checkpoint has such
            projectors already, or more.
        WeightsError: If the checkpoint is not complete.
        ValueError: If there is no such way, or the checkpoint names no tasks to have projectors.
    """
    check_sharing(projector_sharing)
    ensure_free(Path(out), CheckpointError)
    if Path(out).resolve().is_relative_to(checkpoint.resolve()):
        raise CheckpointError(f"{out} is inside {checkpoint}, which is copied")
    old = load_config(checkpoint)
    raw = json.loads((checkpoint / "config.json").read_text())
    raw["projector_sharing"] = projector_sharing
    raw["tasks"] = list(old.tasks if tasks is None else tasks)
    new = MoltcConfig.from_dict(raw)
    origin = _origins(checkpoint, old, new)
    stored = sorted(path for path in checkpoint.iterdir() if _is_weights(path))
    card = _card(checkpoint, stored, old.projector_sharing, projector_sharing)
    with new_folder(Path(out), CheckpointError) as folder:
        for path in sorted(checkpoint.iterdir()):
            if path.is_dir():
                shutil.copytree(path, folder / path.name)
            elif path.name not in ("config.json", CARD_FILE, INDEX_FILE) and path not in stored:
                shutil.copyfile(path, folder / path.name)
        (folder / "config.json").write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n")
        write_weights(folder, _weights(checkpoint, old, origin))
        write_card(folder, card)
    return ConversionReport(Path(out), new, len(expected_weights(new)), card)


def _origins(checkpoint: Path, old: MoltcConfig, new: MoltcConfig) -> dict[str, str]:
    """Of which projector each new one is a copy."""
    order = get_args(ProjectorSharing)
    before, after = old.projector_sharing, new.projector_sharing
    if before == after:
        raise CheckpointError(f"{checkpoint} has projectors {after!r} already")
    if order.index(after) < order.index(before):
        raise CheckpointError(
            f"{checkpoint} has projectors {before!r}: {len(projector_names(old))} that may differ "
            f"cannot become {len(projector_names(new))} ({after!r})"
        )
    # A role's name is the end of the names of that role in every task.
    return {
        name: next(o for o in projector_names(old) if o == "shared" or name.endswith(o))
        for name in projector_names(new)
    }


def _weights(
    checkpoint: Path, config: MoltcConfig, origin: dict[str, str]
) -> Iterator[tuple[str, Tensor]]:
    found = {}
    for key, tensor in read_weights(checkpoint):
        found[key] = tensor.shape
        room, _, rest = key.partition(".")
        if room != "projectors":
            yield key, tensor
            continue
        name, _, weight = rest.rpartition(".")
        for copy, original in origin.items():
            if original == name:
                yield f"projectors.{copy}.{weight}", tensor
    if lines := weight_mismatches(found, expected_weights(config)):
        raise WeightsError(summary(checkpoint, lines), lines)


def _card(checkpoint: Path, stored: list[Path], before: str, after: str) -> dict[str, Any]:
    """The checkpoint's own card with a note of this step."""
    card = read_card(checkpoint)
    for added in ("moltc_vllm", "sha256"):
        card.pop(added, None)
    step = {
        "step": f"projectors {before} -> {after}, copied",
        "checkpoint": folder_name(checkpoint),
        "inputs": [input_record("--checkpoint", path, checkpoint) for path in stored],
    }
    return {**card, "steps": [*card.get("steps", []), step]}


def _is_weights(path: Path) -> bool:
    return path.name.startswith("model") and path.suffix == ".safetensors"
