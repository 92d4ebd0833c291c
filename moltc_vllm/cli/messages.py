"""How commands end when the user's input is at fault."""

from __future__ import annotations

from typing import NoReturn

import typer


def fail(message: str, code: int = 2) -> NoReturn:
    """Print one line to standard error and leave."""
    typer.echo(f"moltc: {message}", err=True)
    raise typer.Exit(code)
