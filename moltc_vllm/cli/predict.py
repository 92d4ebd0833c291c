"""``moltc predict``: one answer on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moltc_vllm.cli.engines import EngineName, open_engine
from moltc_vllm.cli.messages import fail

if TYPE_CHECKING:
    from moltc_vllm.tasks import Answer


def predict(
    smiles: Annotated[list[str], typer.Argument(help="The molecules, as SMILES.")],
    task: Annotated[str, typer.Option(help="What to ask, e.g. solvation.")],
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint folder; default: the shipped moltc-mini.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="URL of a running server.")] = None,
    engine: Annotated[EngineName, typer.Option(help="Without a server.")] = EngineName.vllm,
    question: Annotated[str | None, typer.Option(help="For the task `ask`.")] = None,
    beams: Annotated[int, typer.Option(min=1, help="Of a beam search; 1: greedy.")] = 1,
    pad_query: Annotated[
        bool, typer.Option("--pad-query", help="First token from a pad, as published; torch only.")
    ] = False,
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
    opened = open_engine(model, endpoint, engine, beams=beams, pad_query=pad_query)
    ((_, answer),) = opened.submit(task, [Pair(0, tuple(smiles))], question)
    typer.echo(answer.model_dump_json(exclude_none=True) if json else _one_line(answer))
    if answer.status != "ok":
        raise typer.Exit(1)


def _one_line(answer: Answer) -> str:
    words = answer.result
    if answer.interval is not None:
        words += "  (between {:g} and {:g})".format(*answer.interval)
    if answer.confidence is not None:
        words += f"  confidence {answer.confidence:.2g}"
    return words
