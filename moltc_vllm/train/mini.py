"""Training of the shipped model from random weights: ``python -m moltc_vllm.train.mini``.

With ``--smoke`` every stage runs for a few steps, after a check that a new model can overfit 32
pairs. It takes minutes and shows that data, training and export work together.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from moltc_vllm.checkpoints.shipped import NAME
from moltc_vllm.data import DataError
from moltc_vllm.data.dataset_registry import data_folder
from moltc_vllm.models.checkpoint import read_card
from moltc_vllm.train.card import ship
from moltc_vllm.train.log import read_log
from moltc_vllm.train.loop import Device, TrainingResult, train
from moltc_vllm.train.progress import PrintedProgress
from moltc_vllm.train.recipe import load_recipe

STAGES = ("mini-pretrain", "mini-finetune")
OVERFIT_RECIPE = "mini-smoke"
OVERFIT_MIN_HITS = 0.95
OVERFIT_MAX_LOSS_RATIO = 0.1
_SMOKE_STEPS, _SMOKE_LIMIT = 6, 40


def train_mini(
    data: Path, out: Path, *, smoke: bool = False, device: Device = "auto"
) -> TrainingResult:
    """Run or resume both stages.

    Args:
        data: Folder of the data files.
        out: Folder for the run folders of the stages.
        smoke: Whether to train on a few pairs for a few steps only.
        device: Device to train on. On a GPU matrix products are in bfloat16.

    Returns:
        Result of the last stage that ran; it has no checkpoint if that stage was interrupted.

    Raises:
        DataError: If the data cannot be read.
        ValueError: If a stage was started with another recipe, or there is no GPU for ``cuda``.
    """
    changes = ["precision=bf16"] if device == "cuda" else []
    checkpoint: Path | None = None
    for stage in STAGES:
        recipe = load_recipe(stage, [*changes, *(_smoke_changes(stage) if smoke else [])])
        progress = PrintedProgress(stage, every=2 if smoke else 50)
        result = train(recipe, data, out / stage, progress, checkpoint=checkpoint, device=device)
        checkpoint = result.checkpoint
        if checkpoint is None:
            break
    return result


def _smoke_changes(stage: str) -> list[str]:
    mixture = load_recipe(stage).mixture
    changes = [f"mixture.{name}.limit={_SMOKE_LIMIT}" for name in mixture]
    changes += [f"mixture.{name}.batch_size=4" for name in mixture]
    changes += [f"max_steps={_SMOKE_STEPS}", "warmup_steps=1", "validate_pairs=20"]
    # MiniMol's package is not needed to check that everything works together.
    changes += [f"molecules.limit={_SMOKE_LIMIT}", "molecules.batch_size=4"]
    return [*changes, "molecules.targets=[descriptors, fingerprint]"]


def ship_mini(data: Path, out: Path, checkpoint: Path, limit: int | None = None) -> Path:
    """Measure the trained model on the test splits and copy it to ``out/moltc-mini``.

    Args:
        data: Folder of the data files.
        out: Folder in which the model's folder is replaced.
        checkpoint: Checkpoint of the last stage.
        limit: Largest number of test pairs of each data set; default: all.
    """
    folder = out / NAME
    shutil.rmtree(folder, ignore_errors=True)
    ship(checkpoint, data, folder, name=NAME, limit=limit)
    return folder


def overfit_check(data: Path, out: Path) -> dict[str, float] | None:
    """Train a new model on 32 pairs and check that it reproduces their answers.

    Args:
        data: Folder of the data files.
        out: Folder for the run folder.

    Returns:
        Fraction of reproduced first tokens by data set; ``None`` if training was interrupted.

    Raises:
        AssertionError: If the loss does not fall to a tenth, or too few answers are reproduced.
    """
    run = out / OVERFIT_RECIPE
    progress = PrintedProgress(OVERFIT_RECIPE, every=20)
    result = train(load_recipe(OVERFIT_RECIPE), data, run, progress)
    if result.checkpoint is None:
        return None
    losses = [line["loss"] for line in read_log(run) if "loss" in line]
    hits = {name: metrics["hits"] for name, metrics in result.valid.items()}
    if not losses[-1] < OVERFIT_MAX_LOSS_RATIO * losses[0]:
        raise AssertionError(
            f"overfit check: the loss only fell from {losses[0]} to {losses[-1]}, "
            f"not below {OVERFIT_MAX_LOSS_RATIO:.0%}"
        )
    if min(hits.values()) < OVERFIT_MIN_HITS:
        raise AssertionError(
            f"overfit check: the model reproduces {hits} of its training pairs, "
            f"fewer than {OVERFIT_MIN_HITS:.0%}"
        )
    return hits


def main(
    out: Annotated[
        Path, typer.Option(help="Folder of the runs; run the command again to resume.")
    ] = Path("runs/mini"),
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data files; default: MOLTC_DATA.")
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Check every step of the training in minutes.")
    ] = False,
    device: Annotated[
        Device, typer.Option(help="Device to train on; auto is a GPU if there is one.")
    ] = "auto",
) -> None:
    """Train the shipped model."""
    try:
        folder = data_folder(data)
        summary: dict[str, object] = {}
        if smoke:
            summary["overfit_hits"] = overfit_check(folder, out)
            if summary["overfit_hits"] is None:
                raise typer.Exit(130)
        result = train_mini(folder, out, smoke=smoke, device=device)
    except (DataError, ValueError, AssertionError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    if result.checkpoint is None:
        raise typer.Exit(130)
    shipped = ship_mini(folder, out, result.checkpoint, _SMOKE_LIMIT if smoke else None)
    summary |= {"checkpoint": str(shipped), "test": read_card(shipped)["metrics"]["test"]}
    typer.echo(json.dumps(summary))


if __name__ == "__main__":
    typer.run(main)
