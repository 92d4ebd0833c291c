"""Engines of commands: errors of the options end the command with a message."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moltc_vllm.cli.messages import fail
from moltc_vllm.engines import factory
from moltc_vllm.engines.factory import EngineName
from moltc_vllm.utils.coverage import DEFAULT_COVERAGE
from moltc_vllm.utils.standardization import Standardization

if TYPE_CHECKING:
    from moltc_vllm.tasks.engine import Engine

__all__ = ["EngineName", "StandardizeOption", "open_engine"]

StandardizeOption = Annotated[
    Standardization | None,
    typer.Option(
        help="How molecules are standardized: `cleanup` gives groups and dyes one form and drops "
        "isotopes, `parent` also neutralizes the largest fragment; default: set by the checkpoint.",
        show_default=False,
    ),
]
"""Option ``--standardize`` of the commands that ask a model."""


def open_engine(
    model: Path | None,
    endpoint: str | None,
    name: EngineName,
    *,
    beams: int = 1,
    pad_query: bool = False,
    score: bool = False,
    coverage: float = DEFAULT_COVERAGE,
    standardize: Standardization | None = None,
) -> Engine:
    """Open an engine with `moltc_vllm.engines.factory.open_engine`; exit if it rejects an option.

    Args:
        model: Checkpoint folder; default: the shipped one.
        endpoint: URL of a running server.
        name: Kind of engine.
        beams: Width of the beam search; 1 is greedy decoding.
        pad_query: Whether the first token is predicted from a pad token.
        score: Whether only the tokens that distinguish answers are generated.
        coverage: Coverage of the prediction intervals of numeric answers.
        standardize: How molecules are standardized; default: the choice of the checkpoint.
    """
    try:
        return factory.open_engine(
            model,
            endpoint,
            name,
            beams=beams,
            pad_query=pad_query,
            score=score,
            coverage=coverage,
            standardize=standardize,
        )
    except ValueError as error:  # includes CheckpointError
        fail(str(error))
