"""``moltc train``: run a training stage, or go on with one."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from moltc_vllm.cli.messages import fail
from moltc_vllm.cli.progress import ProgressBars


def train(
    recipe: Annotated[
        str, typer.Argument(help="Name of a recipe (mini-pretrain, ...), or a YAML file.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run; run again to go on.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data files; default: MOLTC_DATA.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Checkpoint to begin with; default: new weights of the recipe's preset."),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another value, e.g. steps=100 or parts.zhangddi.pairs=8."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="A JSON object as the last line, for programs.")
    ] = False,
) -> None:
    """Train a model by a recipe; an interrupted run goes on when the command is given again."""
    from accelerate import PartialState

    from moltc_vllm.data import DataError
    from moltc_vllm.data.datasets import data_folder
    from moltc_vllm.models.checkpoint import CheckpointError
    from moltc_vllm.train.loop import train as run
    from moltc_vllm.train.recipe import RecipeError, load_recipe

    try:
        wanted = load_recipe(recipe, change or ())
        with ProgressBars("steps") as bars:
            watcher = _TrainingDisplay(wanted.name, bars)
            outcome = run(wanted, data_folder(data), out, watcher, checkpoint=model)
    except (RecipeError, DataError, CheckpointError, ValueError) as error:
        fail(str(error))
    if outcome.checkpoint is None:
        raise typer.Exit(130)
    if not PartialState().is_main_process:
        return
    if json:
        summary = {
            "checkpoint": str(outcome.checkpoint),
            "steps": outcome.step,
            "valid": outcome.valid,
        }
        typer.echo(json_module.dumps(summary))
    else:
        typer.echo(f"{outcome.checkpoint}: trained for {outcome.step} steps")


class _TrainingDisplay:
    """What a run tells, above a bar of its steps."""

    def __init__(self, stage: str, bars: ProgressBars) -> None:
        self._stage, self._bars = stage, bars
        self._begun = False

    def tell(self, line: str) -> None:
        self._bars.print_line(line)

    def at(self, step: int, steps: int, pairs_per_second: float, loss: float) -> None:
        if not self._begun:
            self._bars.start_task(self._stage, step)
            self._begun = True
        more = f"loss {loss:.3f}, {pairs_per_second:.0f} pairs/s"
        self._bars.update(self._stage, step, steps, more)
