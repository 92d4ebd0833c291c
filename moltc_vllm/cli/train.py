"""``moltc train``: run a training stage, or go on with one."""

from __future__ import annotations

import json as json_module
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moltc_vllm.cli.messages import fail

if TYPE_CHECKING:
    from rich.console import Console


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
    from moltc_vllm.data import DataError
    from moltc_vllm.data.sources import data_folder
    from moltc_vllm.models.checkpoint import CheckpointError
    from moltc_vllm.train.loop import train as run
    from moltc_vllm.train.recipe import RecipeError, load_recipe

    try:
        wanted = load_recipe(recipe, change or ())
        watcher = _Watcher()
        with watcher.shown():
            outcome = run(wanted, data_folder(data), out, watcher, checkpoint=model)
    except (RecipeError, DataError, CheckpointError, ValueError) as error:
        fail(str(error))
    if outcome.checkpoint is None:
        raise typer.Exit(130)
    if json:
        summary = {
            "checkpoint": str(outcome.checkpoint),
            "steps": outcome.step,
            "valid": outcome.valid,
        }
        typer.echo(json_module.dumps(summary))
    else:
        typer.echo(f"{outcome.checkpoint}: trained for {outcome.step} steps")


class _Watcher:
    """Lines above a bar on a terminal; lines alone in a file."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console: Console = Console(highlight=False, soft_wrap=True, stderr=True)
        self._progress: Any = None
        self._bar: Any = None

    def shown(self) -> AbstractContextManager[Any]:
        """The bar, while the run goes on."""
        if not self.console.is_terminal:
            return nullcontext()
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        return self._progress

    def tell(self, line: str) -> None:
        self.console.print(line, markup=False)

    def at(self, step: int, steps: int, pairs_per_second: float, loss: float) -> None:
        if self._progress is None:
            return
        shown = f"loss {loss:.3f}, {pairs_per_second:.0f} pairs/s"
        if self._bar is None:
            self._bar = self._progress.add_task(shown, total=steps)
        self._progress.update(self._bar, completed=step, description=shown)
