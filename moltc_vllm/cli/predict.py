"""``moltc predict``: answer a task for one pair of molecules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moltc_vllm.cli.engines import EngineName, StandardizeOption, open_engine
from moltc_vllm.cli.messages import fail, print_caution
from moltc_vllm.utils.coverage import DEFAULT_COVERAGE

if TYPE_CHECKING:
    from moltc_vllm.tasks import Answer


def predict(
    smiles: Annotated[
        list[str], typer.Argument(help="SMILES of the molecules, in the order of the task's roles.")
    ],
    task: Annotated[str, typer.Option(help="Name of the task, e.g. solvation.")],
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint folder; default: the shipped moltc-mini.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="URL of a running server, used in place of --model.")
    ] = None,
    engine: Annotated[
        EngineName, typer.Option(help="Inference engine to run in this process.")
    ] = EngineName.vllm,
    question: Annotated[
        str | None, typer.Option(help="Text of the question, for the task `ask` only.")
    ] = None,
    beams: Annotated[
        int, typer.Option(min=1, help="Width of the beam search; 1 is greedy decoding.")
    ] = 1,
    pad_query: Annotated[
        bool,
        typer.Option(
            "--pad-query",
            help="Predict the first token from a pad token, as in the published evaluation; needs "
            "--engine torch.",
        ),
    ] = False,
    standardize: StandardizeOption = None,
    coverage: Annotated[
        float, typer.Option(help="Coverage of the prediction interval of a number.")
    ] = DEFAULT_COVERAGE,
    json: Annotated[
        bool, typer.Option("--json", help="Print all fields of the answer as a JSON object.")
    ] = False,
) -> None:
    """Answer a task for one pair of molecules."""
    from moltc_vllm.tasks import PromptError, UnknownTaskError, get_task
    from moltc_vllm.tasks.engine import Pair

    try:
        known_task = get_task(task)
        known_task.check(len(smiles), question)
    except (UnknownTaskError, PromptError) as error:
        fail(str(error))
    print_caution(known_task)
    opened = open_engine(
        model,
        endpoint,
        engine,
        beams=beams,
        pad_query=pad_query,
        standardize=standardize,
        coverage=coverage,
    )
    ((_, answer),) = opened.submit(task, [Pair(0, tuple(smiles))], question)
    typer.echo(answer.model_dump_json(exclude_none=True) if json else _format(answer))
    if answer.status != "ok":
        raise typer.Exit(1)


def _format(answer: Answer) -> str:
    text = answer.result
    if answer.low is not None and answer.high is not None:
        text += f"  ({answer.low:g} to {answer.high:g})"
    elif answer.likeliest_interval is not None:
        text += "  (most likely between {:g} and {:g})".format(*answer.likeliest_interval)
    if answer.subject is not None and answer.object is not None:
        text += f"  ({answer.subject} acts on {answer.object})"
    if answer.confidence is not None:
        text += f"  confidence {answer.confidence:.2g}"
    if answer.familiarity is not None:
        text += f"  {answer.familiarity} molecules"
    if answer.notes:
        text += f"  [{'; '.join(answer.notes)}]"
    return text
