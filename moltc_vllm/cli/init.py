"""``moltc init``: create an untrained checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moltc_vllm.cli.messages import fail


def init(
    preset: Annotated[
        str,
        typer.Argument(
            help="Model size: tiny, tiny-llama, mini, galactica-125m, galactica-1.3b, "
            "galactica-6.7b or galactica-30b."
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(help="Checkpoint folder to write; must not exist or be empty.")
    ],
    language_model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a pretrained causal language model, such as Galactica; without it the "
            "language model is random."
        ),
    ] = None,
    projectors: Annotated[
        str,
        typer.Option(
            help="Sharing of projectors: shared (one for all molecules), role (one per role in the "
            "pair) or task_role (one per task and role)."
        ),
    ] = "shared",
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Write a new, untrained checkpoint folder."""
    from moltc_vllm.models.presets import create_checkpoint

    if language_model is not None and not language_model.is_dir():
        fail(f"{language_model} is not a folder")
    try:
        config = create_checkpoint(
            preset,
            folder,
            language_model=language_model,
            projector_sharing=projectors,
            seed=seed,
        )
    except ValueError as error:
        fail(str(error))
    size = sum(path.stat().st_size for path in folder.glob("model*.safetensors"))
    typer.echo(
        f"{folder}: {preset}, {config.text_config.model_type} of width "
        f"{config.text_config.hidden_size}, {len(config.tasks)} tasks, {size / 1e6:.1f} MB. "
        "The weights are untrained: answers are random."
    )
