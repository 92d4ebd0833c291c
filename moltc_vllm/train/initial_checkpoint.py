"""Checkpoint that a training stage starts from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from moltc_vllm.models.checkpoint import CONFIG_FILE, CheckpointError, load_config
from moltc_vllm.models.conversion.projector_split import split_projectors
from moltc_vllm.models.presets import PRESETS, create_checkpoint
from moltc_vllm.train.recipe import Recipe
from moltc_vllm.train.training_data import recipe_tasks
from moltc_vllm.train.vocabulary import training_phrases
from moltc_vllm.utils.atomic_files import new_folder


def create_initial_checkpoint(recipe: Recipe, folder: Path, checkpoint: Path | None) -> None:
    """Write the model to start from, with the projectors that the stage needs.

    A folder that exists already, as in a resumed run, is left unchanged.

    Args:
        recipe: Recipe of the stage.
        folder: Checkpoint folder to write.
        checkpoint: Checkpoint of an earlier stage; ``None`` for random weights of the recipe's
            preset.

    Raises:
        CheckpointError: If the preset is unknown, or the checkpoint cannot be read or lacks
            projectors for a task of the recipe.
    """
    if folder.is_dir():
        return
    present = () if checkpoint is None else load_config(checkpoint).tasks
    tasks = [task.name for task in recipe_tasks(recipe, present)]
    if checkpoint is None:
        _create_from_preset(recipe, folder, tasks)
    elif load_config(checkpoint).projector_sharing == recipe.projectors:
        _copy_with_tasks(recipe, folder, checkpoint, tasks)
    else:
        # Only trained tasks get projectors: those of other tasks would look trained as well.
        split_projectors(checkpoint, folder, recipe.projectors, tasks=tasks)


def _create_from_preset(recipe: Recipe, folder: Path, tasks: list[str]) -> None:
    preset = PRESETS.get(recipe.init_from)
    phrases = training_phrases() if preset is not None and preset.has_phrase_tokens else None
    create_checkpoint(
        recipe.init_from,
        folder,
        projector_sharing=recipe.projectors,
        seed=recipe.seed,
        phrases=phrases,
        tasks=tasks,
        config_overrides=recipe.model,
    )


def _copy_with_tasks(recipe: Recipe, folder: Path, checkpoint: Path, tasks: list[str]) -> None:
    """Copy a checkpoint and add the recipe's tasks to its configuration."""
    present = load_config(checkpoint).tasks
    added = [name for name in tasks if name not in present]
    if added and recipe.projectors == "task_role":
        raise CheckpointError(f"{checkpoint} has no projectors for {', '.join(added)}")
    with new_folder(folder, CheckpointError) as partial:
        shutil.copytree(checkpoint, partial, dirs_exist_ok=True)
        config = json.loads((partial / CONFIG_FILE).read_text())
        config["tasks"] = [*present, *added]
        (partial / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
