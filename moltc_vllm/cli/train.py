"""``moltc train``: run or resume a training stage."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from moltc_vllm.cli.messages import fail
from moltc_vllm.cli.progress import ProgressBars


def train(
    recipe: Annotated[
        str, typer.Argument(help="Name of a recipe, such as mini-finetune, or path of a YAML file.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the run; the same command resumes an interrupted run.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the data files; default: environment variable MOLTC_DATA."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint to start from; default: random weights of the recipe's preset."
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Value that replaces one of the recipe, e.g. max_steps=100 or "
            "mixture.zhangddi.batch_size=8; may be repeated.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as a JSON object on the last line.")
    ] = False,
) -> None:
    """Train a model with a recipe, or resume an interrupted run.

    Ctrl-C saves the state of the run. The run folder holds the log, loss curves, saved states and
    finally the trained checkpoint.
    """
    from accelerate import PartialState

    from moltc_vllm.data import DataError
    from moltc_vllm.data.dataset_registry import data_folder
    from moltc_vllm.models.checkpoint import CheckpointError
    from moltc_vllm.train.loop import train as run
    from moltc_vllm.train.recipe import RecipeError, load_recipe

    try:
        settings = load_recipe(recipe, change or ())
        with ProgressBars("steps") as bars:
            progress = _TrainingDisplay(settings.name, bars)
            result = run(settings, data_folder(data), out, progress, checkpoint=model)
    except (RecipeError, DataError, CheckpointError, FloatingPointError, ValueError) as error:
        fail(str(error))
    if result.checkpoint is None:
        raise typer.Exit(130)
    if not PartialState().is_main_process:
        return
    if json:
        summary = {
            "checkpoint": str(result.checkpoint),
            "steps": result.step,
            "valid": result.valid,
        }
        typer.echo(json_module.dumps(summary))
    else:
        typer.echo(f"{result.checkpoint}: trained for {result.step} steps")


class _TrainingDisplay:
    """Progress of a run as a bar of its steps, with messages above it."""

    def __init__(self, stage: str, bars: ProgressBars) -> None:
        self._stage, self._bars = stage, bars
        self._started = False

    def message(self, text: str) -> None:
        self._bars.print_line(text)

    def update(self, step: int, max_steps: int, pairs_per_second: float, loss: float) -> None:
        if not self._started:
            self._bars.start_task(self._stage, step)
            self._started = True
        more = f"loss {loss:.3f}, {pairs_per_second:.0f} pairs/s"
        self._bars.update(self._stage, step, max_steps, more)
