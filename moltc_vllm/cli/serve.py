"""``moltc serve``: vLLM's OpenAI-compatible server with molecules."""

from __future__ import annotations

from pathlib import Path

import typer

from moltc_vllm.cli.messages import fail


def serve(context: typer.Context) -> None:
    """Serve a checkpoint: `moltc serve [FOLDER] [FLAGS]`; default: the one that is shipped.

    Any flag of `vllm serve` may follow (--vllm-help lists them).
    """
    from moltc_vllm.checkpoints.shipped import NAME, shipped_checkpoint
    from moltc_vllm.models.checkpoint import CheckpointError, load_config

    # Everything is taken as it comes: a declared argument would swallow the first flag's value.
    arguments = ["--help=all" if one == "--vllm-help" else one for one in context.args]
    if arguments and not arguments[0].startswith("-"):
        folder = Path(arguments.pop(0))
    else:
        folder = shipped_checkpoint()
        if not any(one.startswith("--served-model-name") for one in arguments):
            arguments += ["--served-model-name", NAME]
    try:
        load_config(folder)
    except CheckpointError as error:
        fail(str(error))
    from moltc_vllm.plugin import launcher

    try:
        launcher.serve([str(folder), *arguments])
    except CheckpointError as error:  # of an adapter, before anything started
        fail(str(error))
