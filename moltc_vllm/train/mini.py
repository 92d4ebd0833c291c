"""``python -m moltc_vllm.train.mini``: the shipped model from nothing, or a rehearsal of it.

The rehearsal (``--smoke``) goes the same way with a few steps of each stage, and then lets a new
model learn thirty-two pairs by heart: in minutes it shows that everything fits together.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from moltc_vllm.checkpoints.shipped import NAME
from moltc_vllm.data import DataError
from moltc_vllm.data.datasets import data_folder
from moltc_vllm.models.checkpoint import read_card
from moltc_vllm.train.card import ship
from moltc_vllm.train.log import read_log
from moltc_vllm.train.loop import TrainingProgress, TrainingResult, train
from moltc_vllm.train.recipe import load_recipe

STAGES = ("mini-pretrain", "mini-finetune")
OVERFIT_PAIRS = "mini-smoke"
OVERFIT_MIN_HITS = 0.95
_STEPS, _LIMIT = 6, 40  # of each stage of the rehearsal


class Lines:
    """Progress for a terminal and for a log file alike: a line now and then."""

    def __init__(self, stage: str, every: int) -> None:
        self._stage = stage
        self._every = every

    def tell(self, line: str) -> None:
        """Something happened."""
        print(f"{self._stage}: {line}", file=sys.stderr, flush=True)

    def at(self, step: int, steps: int, pairs_per_second: float, loss: float) -> None:
        """A step is done; some are told."""
        if step % self._every == 0 or step == 1:
            self.tell(f"step {step} of {steps}, {pairs_per_second:.0f} pairs/s, loss {loss:.3f}")


def train_mini(data: Path, out: Path, *, smoke: bool = False) -> TrainingResult:
    """Run both stages, or go on with them.

    Args:
        data: Folder of the data files.
        out: Gets a folder per stage.
        smoke: A few steps of each only.

    Raises:
        DataError: If the data cannot be read.
        ValueError: If a stage was begun with another recipe.
    """
    outcome: TrainingResult | None = None
    for stage in STAGES:
        watcher: TrainingProgress = Lines(stage, 2 if smoke else 50)
        recipe = load_recipe(stage)
        if smoke:
            changes = [f"parts.{name}.limit={_LIMIT}" for name in recipe.parts]
            changes += [f"parts.{name}.pairs=4" for name in recipe.parts]
            changes += [f"steps={_STEPS}", "warmup=1", "validate_pairs=20"]
            recipe = load_recipe(stage, changes)
        before = outcome.checkpoint if outcome else None
        outcome = train(recipe, data, out / stage, watcher, checkpoint=before)
        if outcome.checkpoint is None:
            return outcome
    assert outcome is not None
    return outcome


def ship_mini(data: Path, out: Path, checkpoint: Path, most: int | None = None) -> Path:
    """Measure the trained model on the test parts and put it into ``out/moltc-mini``."""
    folder = out / NAME
    shutil.rmtree(folder, ignore_errors=True)
    ship(checkpoint, data, folder, name=NAME, most=most)
    return folder


def overfit_check(data: Path, out: Path) -> dict[str, float] | None:
    """Let a new model learn a few pairs by heart; how many of each data set it then knows.

    ``None`` if it was interrupted.

    Raises:
        AssertionError: If the loss has not fallen to a tenth, or it knows too few.
    """
    outcome = train(load_recipe(OVERFIT_PAIRS), data, out / OVERFIT_PAIRS, Lines(OVERFIT_PAIRS, 20))
    if outcome.checkpoint is None:
        return None
    losses = [line["loss"] for line in read_log(out / OVERFIT_PAIRS) if "loss" in line]
    hits = {name: metrics["hits"] for name, metrics in outcome.valid.items()}
    if not losses[-1] < losses[0] / 10:
        raise AssertionError(f"the loss went from {losses[0]} to {losses[-1]} only")
    if min(hits.values()) < OVERFIT_MIN_HITS:
        raise AssertionError(f"of the pairs that it was shown it knows {hits}")
    return hits


def main(
    out: Annotated[Path, typer.Option(help="Folder of the runs; run again to go on.")] = Path(
        "runs/mini"
    ),
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data files; default: MOLTC_DATA.")
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="A rehearsal of minutes.")] = False,
) -> None:
    """Train the shipped model."""
    try:
        folder = data_folder(data)
        result: dict[str, object] = {}
        if smoke:
            result["by_heart"] = overfit_check(folder, out)
            if result["by_heart"] is None:
                raise typer.Exit(130)
        outcome = train_mini(folder, out, smoke=smoke)
    except (DataError, ValueError, AssertionError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    if outcome.checkpoint is None:
        raise typer.Exit(130)
    shipped = ship_mini(folder, out, outcome.checkpoint, _LIMIT if smoke else None)
    result |= {"checkpoint": str(shipped), "test": read_card(shipped)["metrics"]["test"]}
    typer.echo(json.dumps(result))


if __name__ == "__main__":
    typer.run(main)
