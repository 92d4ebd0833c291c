"""The engine that a command's options name; the command ends where they are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moltc_vllm.cli.messages import fail
from moltc_vllm.engines import factory as engines
from moltc_vllm.engines.factory import EngineName

if TYPE_CHECKING:
    from moltc_vllm.tasks.engine import Engine

__all__ = ["EngineName", "open_engine"]


def open_engine(
    model: Path | None,
    endpoint: str | None,
    name: EngineName,
    *,
    beams: int = 1,
    pad_query: bool = False,
    score: bool = False,
) -> Engine:
    """`moltc_vllm.engines.factory.open_engine`, whose errors are messages."""
    try:
        return engines.open_engine(
            model, endpoint, name, beams=beams, pad_query=pad_query, score=score
        )
    except ValueError as error:  # a CheckpointError, or options that do not go together
        fail(str(error))
