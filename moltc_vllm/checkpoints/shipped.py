"""The checkpoint that comes with the package, and is taken where none is named."""

from __future__ import annotations

from pathlib import Path

NAME = "moltc-mini"


def shipped_checkpoint() -> Path:
    """Folder of the shipped model; see its ``card.json``."""
    return Path(__file__).parent / NAME
