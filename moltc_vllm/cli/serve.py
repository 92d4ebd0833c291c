"""``moltc serve``: vLLM's OpenAI-compatible server with molecules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moltc_vllm.cli.messages import fail


def serve(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
) -> None:
    """Serve a checkpoint; any flag of `vllm serve` may follow (--vllm-help lists them)."""
    from moltc_vllm.models.checkpoint import CheckpointError, load_config

    try:
        load_config(folder)
    except CheckpointError as error:
        fail(str(error))
    from moltc_vllm.plugin import launcher

    arguments = ["--help=all" if one == "--vllm-help" else one for one in context.args]
    try:
        launcher.serve([str(folder), *arguments])
    except CheckpointError as error:  # of an adapter, before anything started
        fail(str(error))
