"""Error messages of commands."""

from __future__ import annotations

from typing import NoReturn

import typer


def fail(message: str, code: int = 2) -> NoReturn:
    """Print an error message to standard error and exit.

    Args:
        message: Message of one line.
        code: Exit status.
    """
    typer.echo(f"moltc: {message}", err=True)
    raise typer.Exit(code)
