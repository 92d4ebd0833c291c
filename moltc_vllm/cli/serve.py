"""``moltc serve``: vLLM's OpenAI-compatible server with molecules."""

from __future__ import annotations

from pathlib import Path

import typer

from moltc_vllm.cli.messages import fail


def serve(context: typer.Context) -> None:
    """Serve a checkpoint with vLLM: `moltc serve [FOLDER] [FLAGS]`.

    Without FOLDER the shipped model is served. Any flag of `vllm serve` may follow; --vllm-help
    lists them. `--standardize as-drawn|cleanup|parent` sets how molecules are standardized;
    default: the checkpoint's choice.
    """
    from moltc_vllm.checkpoints.shipped import NAME, shipped_checkpoint
    from moltc_vllm.models.checkpoint import CheckpointError, load_config
    from moltc_vllm.plugin.server.flags import replace_standardize

    # The folder is not declared as a parameter, because Typer could mistake a flag's value for it.
    arguments = [
        "--help=all" if argument == "--vllm-help" else argument for argument in context.args
    ]
    if arguments and not arguments[0].startswith("-"):
        folder = Path(arguments.pop(0))
    else:
        folder = shipped_checkpoint()
        if not any(argument.startswith("--served-model-name") for argument in arguments):
            arguments += ["--served-model-name", NAME]
    try:
        load_config(folder)
        arguments = replace_standardize(arguments)
    except ValueError as error:  # includes CheckpointError
        fail(str(error))
    from moltc_vllm.plugin import launcher

    try:
        launcher.serve([str(folder), *arguments])
    except CheckpointError as error:  # raised for an adapter before the server starts
        fail(str(error))
