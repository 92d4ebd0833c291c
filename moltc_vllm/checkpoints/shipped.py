"""The checkpoint that is part of the package, the default where no model is named."""

from __future__ import annotations

from pathlib import Path

NAME = "moltc-mini"


def shipped_checkpoint() -> Path:
    """Return the folder of the shipped checkpoint; its ``card.json`` describes it."""
    return Path(__file__).parent / NAME
