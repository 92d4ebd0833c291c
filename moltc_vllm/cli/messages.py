"""Error messages of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from moltc_vllm.tasks import Task


def fail(message: str, code: int = 2) -> NoReturn:
    """Print an error message to standard error and exit.

    Args:
        message: Message of one line.
        code: Exit status.
    """
    typer.echo(f"moltc: {message}", err=True)
    raise typer.Exit(code)


def print_caution(task: Task) -> None:
    """Print the caution of a task to standard error, if it has one."""
    if task.caution is not None:
        typer.echo(f"moltc: warning: {task.name} is {task.caution}", err=True)
