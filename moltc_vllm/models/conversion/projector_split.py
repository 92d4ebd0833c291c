"""Copies of a checkpoint's projectors, one for each role or each task and role."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
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
from moltc_vllm.models.conversion.report import ConversionReport
from moltc_vllm.models.projector import projector_names
from moltc_vllm.models.weights import WeightsError, summarize_mismatches, weight_mismatches
from moltc_vllm.utils.atomic_files import ensure_free, new_folder


def check_sharing(sharing: str) -> None:
    """Check a value of `ProjectorSharing`.

    Raises:
        ValueError: If the value is unknown.
    """
    allowed = get_args(ProjectorSharing)
    if sharing not in allowed:
        raise ValueError(f"projectors must be one of {', '.join(allowed)}, not {sharing!r}")


def split_projectors(
    checkpoint: Path,
    out: Path,
    projector_sharing: ProjectorSharing,
    *,
    tasks: Sequence[str] | None = None,
) -> ConversionReport:
    """Copy a checkpoint folder, with a copy of the projectors for each role or task and role.

    All other weights, the tokenizer, adapters and other files are copied unchanged.

    Args:
        checkpoint: Checkpoint folder of this package.
        out: Folder to write; must not exist, or be empty.
        projector_sharing: Sharing of the copy: ``role`` or ``task_role``.
        tasks: Names of the tasks of the copy. Default: those of the checkpoint.

    Raises:
        CheckpointError: If ``out`` is not empty or inside the checkpoint, or the checkpoint already
            has at least as many projectors.
        WeightsError: If the checkpoint is incomplete.
        ValueError: If ``projector_sharing`` is unknown, or the checkpoint has no tasks.
    """
    check_sharing(projector_sharing)
    ensure_free(Path(out), CheckpointError)
    if Path(out).resolve().is_relative_to(checkpoint.resolve()):
        raise CheckpointError(f"{out} must not be inside {checkpoint}, which is copied")
    old = load_config(checkpoint)
    raw = json.loads((checkpoint / "config.json").read_text())
    raw["projector_sharing"] = projector_sharing
    raw["tasks"] = list(old.tasks if tasks is None else tasks)
    new = MoltcConfig.from_dict(raw)
    sources = _projector_sources(checkpoint, old, new)
    stored = sorted(path for path in checkpoint.iterdir() if _is_weights(path))
    card = _card(checkpoint, stored, old.projector_sharing, projector_sharing)
    with new_folder(Path(out), CheckpointError) as folder:
        for path in sorted(checkpoint.iterdir()):
            if path.is_dir():
                shutil.copytree(path, folder / path.name)
            elif path.name not in ("config.json", CARD_FILE, INDEX_FILE) and path not in stored:
                shutil.copyfile(path, folder / path.name)
        (folder / "config.json").write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n")
        write_weights(folder, _copy_weights(checkpoint, old, sources))
        write_card(folder, card)
    return ConversionReport(Path(out), new, len(expected_weights(new)), card)


def _projector_sources(checkpoint: Path, old: MoltcConfig, new: MoltcConfig) -> dict[str, str]:
    """Return the name of the existing projector that each new projector is a copy of."""
    order = get_args(ProjectorSharing)
    before, after = old.projector_sharing, new.projector_sharing
    if before == after:
        raise CheckpointError(f"{checkpoint} already has projectors {after!r}")
    if order.index(after) < order.index(before):
        raise CheckpointError(
            f"{checkpoint} has {len(projector_names(old))} projectors ({before!r}), which may "
            f"differ and cannot be joined into {len(projector_names(new))} ({after!r})"
        )
    # The name of a projector of a task and role ends with the name of the role's projector.
    return {
        name: next(
            source for source in projector_names(old) if source == "shared" or name.endswith(source)
        )
        for name in projector_names(new)
    }


def _copy_weights(
    checkpoint: Path, config: MoltcConfig, sources: Mapping[str, str]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a checkpoint, with those of each projector under its new names."""
    shapes = {}
    for key, tensor in read_weights(checkpoint):
        shapes[key] = tensor.shape
        component, _, rest = key.partition(".")
        if component != "projectors":
            yield key, tensor
            continue
        name, _, weight = rest.rpartition(".")
        for copy, source in sources.items():
            if source == name:
                yield f"projectors.{copy}.{weight}", tensor
    if lines := weight_mismatches(shapes, expected_weights(config)):
        raise WeightsError(summarize_mismatches(checkpoint, lines), lines)


def _card(checkpoint: Path, stored: list[Path], before: str, after: str) -> dict[str, Any]:
    """Return the checkpoint's card with a record of this step."""
    card = read_card(checkpoint)
    for name in ("moltc_vllm", "sha256"):  # `write_card` adds these for the copy
        card.pop(name, None)
    step = {
        "step": f"projectors {before} -> {after}, copied",
        "checkpoint": folder_name(checkpoint),
        "inputs": [input_record("--checkpoint", path, checkpoint) for path in stored],
    }
    return {**card, "steps": [*card.get("steps", []), step]}


def _is_weights(path: Path) -> bool:
    return path.name.startswith("model") and path.suffix == ".safetensors"
