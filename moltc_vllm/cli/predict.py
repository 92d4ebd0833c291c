"""``moltc predict``: one answer on the command line."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moltc_vllm.cli.messages import fail

if TYPE_CHECKING:
    from moltc_vllm.tasks import Answer
    from moltc_vllm.tasks.engine import Engine


class EngineName(enum.StrEnum):
    """Where the answer is computed."""

    vllm = "vllm"
    torch = "torch"


def predict(
    smiles: Annotated[list[str], typer.Argument(help="The molecules, as SMILES.")],
    task: Annotated[str, typer.Option(help="What to ask, e.g. solvation.")],
    model: Annotated[Path | None, typer.Option(help="Checkpoint folder.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="URL of a running server.")] = None,
    engine: Annotated[EngineName, typer.Option(help="Without a server.")] = EngineName.vllm,
    question: Annotated[str | None, typer.Option(help="For the task `ask`.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The whole answer as JSON.")] = False,
) -> None:
    """Ask one question about one pair of molecules."""
    from moltc_vllm.tasks import PromptError, UnknownTaskError, get_task
    from moltc_vllm.tasks.engine import Pair

    try:
        wanted = get_task(task)
        wanted.check(len(smiles), question)
    except (UnknownTaskError, PromptError) as error:
        fail(str(error))
    ((_, answer),) = _engine(model, endpoint, engine).submit(
        task, [Pair(0, tuple(smiles))], question
    )
    typer.echo(answer.model_dump_json(exclude_none=True) if json else _one_line(answer))
    if answer.status != "ok":
        raise typer.Exit(1)


def _engine(model: Path | None, endpoint: str | None, name: EngineName) -> Engine:
    if endpoint is not None:
        from moltc_vllm.screen import HttpEngine

        return HttpEngine(endpoint)
    if model is None:
        fail("give a checkpoint folder (--model) or a running server (--endpoint)")
    from moltc_vllm.models.checkpoint import CheckpointError, load_config

    try:
        load_config(model)
    except CheckpointError as error:
        fail(str(error))
    if name is EngineName.torch:
        from moltc_vllm.models.engine import TorchEngine

        return TorchEngine(model)
    from moltc_vllm.plugin.engine import VllmEngine

    return VllmEngine(model)


def _one_line(answer: Answer) -> str:
    words = answer.result
    if answer.interval is not None:
        words += "  (between {:g} and {:g})".format(*answer.interval)
    if answer.confidence is not None:
        words += f"  confidence {answer.confidence:.2g}"
    return words
