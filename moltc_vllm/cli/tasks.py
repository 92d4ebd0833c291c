"""``moltc tasks``: list the tasks that a model answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moltc_vllm.cli.messages import fail
from moltc_vllm.utils.errors import one_line

if TYPE_CHECKING:
    from moltc_vllm.tasks import Task


def tasks(
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint folder; default: the shipped moltc-mini.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="URL of a running server to use instead of a checkpoint.")
    ] = None,
    show_all: Annotated[
        bool, typer.Option("--all", help="Also list experimental tasks, with the reason.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the tasks as a JSON list instead of a table.")
    ] = False,
) -> None:
    """List the tasks that a model answers, without the experimental ones."""
    answered = _model_tasks(model, endpoint)
    listed = [task for task in answered if show_all or task.caution is None]
    if as_json:
        typer.echo(json.dumps([_as_json(task) for task in listed]))
        return
    _print_table(listed)
    if len(listed) < len(answered):
        typer.echo(f"{len(answered) - len(listed)} experimental, shown with --all", err=True)


def _model_tasks(model: Path | None, endpoint: str | None) -> list[Task]:
    """Return the tasks of a model in the order of the task table; exit if it cannot be read."""
    import httpx

    from moltc_vllm.engines.factory import model_tasks
    from moltc_vllm.engines.http import ServerError
    from moltc_vllm.tasks import TASKS

    try:
        names = model_tasks(model, endpoint)
    except (ValueError, ServerError, httpx.HTTPError) as error:  # includes CheckpointError
        fail(one_line(error))
    return [task for name, task in TASKS.items() if name in names]


def _as_json(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "title": task.title,
        "molecules": list(task.roles),
        "answer": _describe_answer(task),
        "caution": task.caution,
    }


def _print_table(listed: Sequence[Task]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table("task", "molecules", "answer", "meaning", box=SIMPLE_HEAD)
    for task in listed:
        molecules = "any number" if task.any_molecules else ", ".join(task.roles)
        meaning = task.title if task.caution is None else f"{task.title} ({task.caution})"
        table.add_row(task.name, molecules, _describe_answer(task), meaning)
    Console(highlight=False, soft_wrap=True).print(table)


def _describe_answer(task: Task) -> str:
    """Return the form of a task's answers in a few words."""
    from moltc_vllm.tasks import Choice, Number, Terms

    if isinstance(task.kind, Choice):
        labels = task.kind.labels
        names = " or ".join(label.name for label in labels)
        return names if len(labels) <= 2 else f"one of {len(labels)} labels"
    if isinstance(task.kind, Number):
        return f"number, {task.kind.unit}" if task.kind.unit else "number"
    if isinstance(task.kind, Terms):
        return f"list out of {len(task.kind.vocabulary)} terms"
    return "text"
