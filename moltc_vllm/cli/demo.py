"""``moltc demo``: start a server, send it requests in three forms and write a report."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from openai import OpenAI
    from rich.console import Console

    from moltc_vllm.screening.heatmap import Heatmap
    from moltc_vllm.screening.report import Hit
    from moltc_vllm.tasks import Answer

TASK = "solvation"
SERVED_MODEL_NAME = "moltc"
DRUGS = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "warfarin": "CC(=O)CC(c1ccccc1)C1=C(O)c2ccccc2OC1=O",
    "caffeine": "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "ibuprofen": "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
}
SOLVENTS = {"water": "O", "ethanol": "CCO", "toluene": "Cc1ccccc1", "chloroform": "ClC(Cl)Cl"}


def demo(
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint folder; default: the shipped moltc-mini.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report and the server's log.")] = Path(
        "demo"
    ),
) -> None:
    """Start a server, answer tasks for real molecules and write a report.

    The requests are a chat, a streamed completion and a batch of pairs.
    """
    from openai import OpenAI
    from rich.console import Console

    from moltc_vllm.checkpoints.shipped import shipped_checkpoint
    from moltc_vllm.models.checkpoint import read_card
    from moltc_vllm.plugin.server.server_process import ServerProcess

    console = Console(highlight=False, soft_wrap=True)
    out.mkdir(parents=True, exist_ok=True)
    model = model or shipped_checkpoint()
    card = read_card(model)
    # The note of an untrained model says that its answers are random.
    note = "" if card.get("trained_on") else str(card.get("note", ""))
    server = ServerProcess(
        model,
        ["--served-model-name", SERVED_MODEL_NAME, "--no-enable-log-requests"],
        log=out / "server.log",
    )
    started_at = time.monotonic()
    try:
        with console.status("starting the server") as status:
            server.start(lambda seconds: status.update(f"starting the server ({seconds:.0f} s)"))
        console.print(
            f"server ready after {time.monotonic() - started_at:.0f} s at {server.url}/v1"
        )
        if note:
            console.print(f"[yellow]{note}[/]")
        client = OpenAI(base_url=f"{server.url}/v1", api_key="none")
        _show_chat(client, console)
        _show_completion(client, console)
        hits = _show_batch(server.url, console)
        _write_report(out / "report.html", hits, server.url, note, console)
    finally:
        server.stop()


def _constrained_options() -> dict[str, Any]:
    """Return the request options that constrain an answer to the task's grammar."""
    from moltc_vllm.tasks import get_task

    task = get_task(TASK)
    grammar = task.grammar()
    assert grammar is not None
    return {
        "temperature": 0,
        "max_tokens": task.max_tokens,
        "extra_body": {"structured_outputs": {"regex": grammar.value}},
    }


def _show_chat(client: OpenAI, console: Console) -> None:
    """Send a chat whose molecules are content parts."""
    from moltc_vllm.tasks import get_task

    question = get_task(TASK).question
    console.rule("chat with molecules as content parts")
    content: Any = [
        {"type": "molecule", "molecule": {"smiles": DRUGS["caffeine"]}},
        {"type": "molecule", "molecule": {"smiles": SOLVENTS["water"]}},
        {"type": "text", "text": question},
    ]
    chat = client.chat.completions.create(
        model=SERVED_MODEL_NAME,
        messages=[{"role": "user", "content": content}],
        **_constrained_options(),
    )
    console.print(f"caffeine in water. {question}\n  -> {chat.choices[0].message.content}")


def _show_completion(client: OpenAI, console: Console) -> None:
    """Stream a completion whose molecules are tags in the text."""
    from moltc_vllm.tasks import get_task

    question = get_task(TASK).question
    console.rule("streamed completion with molecules as tags in plain text")
    prompt = (
        f"[START_I_SMILES]{DRUGS['ibuprofen']}[END_I_SMILES] "
        f"[START_I_SMILES]{SOLVENTS['ethanol']}[END_I_SMILES] {question}\n"
    )
    console.print(f"ibuprofen in ethanol. {question}\n  -> ", end="")
    for chunk in client.completions.create(
        model=SERVED_MODEL_NAME, prompt=prompt, stream=True, **_constrained_options()
    ):
        console.print(chunk.choices[0].text, end="")
    console.print()


def _show_batch(url: str, console: Console) -> list[Hit]:
    """Answer every drug in every solvent, and an invalid molecule, in one batch."""
    from moltc_vllm.engines.http import HttpEngine
    from moltc_vllm.screening.report import Hit
    from moltc_vllm.tasks.engine import Pair

    console.rule("typed answers for a batch of pairs: POST /v1/interactions")
    solutes = {**DRUGS, "typing error": "CC(=O)Oc1ccccc1C(=O"}
    names = list(itertools.product(solutes, SOLVENTS))
    pairs = [
        Pair(row, (solutes[first], SOLVENTS[second])) for row, (first, second) in enumerate(names)
    ]
    started_at = time.monotonic()
    answers = sorted(HttpEngine(url).submit(TASK, pairs))
    seconds = time.monotonic() - started_at
    hits = [
        Hit(names[pair.row], (pair.molecules[0], pair.molecules[1]), answer)
        for pair, answer in answers
    ]
    _print_table(hits, console)
    console.print(
        f"{len(hits)} pairs in {seconds:.2f} s; the invalid molecule: {hits[-1].answer.error}"
    )
    return hits


def _print_table(hits: list[Hit], console: Console) -> None:
    """Print the first hits and the last one, whose molecule is invalid."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    columns = ("solute", "solvent", "kcal/mol", "between", "confidence", "status")
    table = Table(*columns, box=SIMPLE_HEAD)
    for hit in [*hits[:5], *hits[-1:]]:
        answer = hit.answer
        table.add_row(
            *hit.names,
            "" if answer.value is None else f"{answer.value:.2f}",
            _between(answer),
            "" if answer.confidence is None else f"{answer.confidence:.2g}",
            answer.status,
        )
    console.print(table)


def _between(answer: Answer) -> str:
    """Return the prediction interval, or the likeliest interval if the model is not calibrated."""
    if answer.low is not None and answer.high is not None:
        return f"{answer.low:g}, {answer.high:g}"
    if answer.likeliest_interval is not None:
        return "{:g}, {:g}".format(*answer.likeliest_interval)
    return ""


def _write_report(path: Path, hits: list[Hit], url: str, note: str, console: Console) -> None:
    from collections import Counter

    from moltc_vllm.screening.report import Page, write_report
    from moltc_vllm.tasks import get_task

    counters = _read_counters(url)
    console.print(
        f"{len(DRUGS) + len(SOLVENTS)} different molecules: parsed "
        f"{counters.get('moltc_molecules_parsed_total', 0):.0f} times, encoded "
        f"{counters.get('moltc_molecules_encoded_total', 0):.0f} times"
    )
    task = get_task(TASK)
    page = Page(
        title=f"{task.title} in kcal/mol",
        settings={"task": task.name, "server": url},
        counts=Counter(hit.answer.status for hit in hits),
        note=note,
        heatmap=_heatmap(hits),
        hits=hits,
        roles=task.roles,
    )
    write_report(path, page)
    console.print(f"report: {path}")


def _read_counters(url: str) -> dict[str, float]:
    """Return the server's counters of the molecule modality that have no labels."""
    import httpx

    return {
        line.split()[0]: float(line.split()[1])
        for line in httpx.get(f"{url}/metrics").text.splitlines()
        if line.startswith("moltc_") and "{" not in line
    }


def _heatmap(hits: list[Hit]) -> Heatmap:
    from moltc_vllm.screening.heatmap import Cell, Heatmap

    solutes, solvents = (list(dict.fromkeys(hit.names[role] for hit in hits)) for role in (0, 1))
    cells = {
        (solutes.index(hit.names[0]), solvents.index(hit.names[1])): Cell.of(
            hit.answer, hit.answer.value
        )
        for hit in hits
    }
    return Heatmap(solutes, solvents, cells, "kcal/mol")
