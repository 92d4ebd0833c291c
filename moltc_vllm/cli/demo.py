"""``moltc demo``: the server up, real pairs through the ``openai`` client, a small screen."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from openai import OpenAI
    from rich.console import Console

    from moltc_vllm.screening.report import Hit

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
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("demo"),
) -> None:
    """Start a server, ask it about real molecules, screen a few pairs, write a report."""
    from openai import OpenAI
    from rich.console import Console

    from moltc_vllm.checkpoints.shipped import shipped_checkpoint
    from moltc_vllm.models.checkpoint import read_card
    from moltc_vllm.plugin.server.server_process import ServerProcess

    console = Console(highlight=False, soft_wrap=True)
    out.mkdir(parents=True, exist_ok=True)
    model = model or shipped_checkpoint()
    card = read_card(model)
    note = "" if card.get("trained_on") else str(card.get("note", ""))  # untrained, and says so
    server = ServerProcess(
        model, ["--served-model-name", "moltc", "--no-enable-log-requests"], log=out / "server.log"
    )
    begin = time.monotonic()
    try:
        with console.status("starting vLLM's server") as status:
            server.start(lambda seconds: status.update(f"starting vLLM's server ({seconds:.0f} s)"))
        console.print(f"server up after {time.monotonic() - begin:.0f} s at {server.url}/v1")
        if note:
            console.print(f"[yellow]{note}[/]")
        client = OpenAI(base_url=f"{server.url}/v1", api_key="none")
        _ask(client, console)
        rows = _screen(server.url, console)
        _report(out / "report.html", rows, server.url, note, console)
    finally:
        server.stop()


def _ask(client: OpenAI, console: Console) -> None:
    """Three ways in for clients of the OpenAI API."""
    from moltc_vllm.tasks import get_task

    task = get_task("solvation")
    console.rule("chat, molecules as content parts")
    content: Any = [
        {"type": "molecule", "molecule": {"smiles": DRUGS["caffeine"]}},
        {"type": "molecule", "molecule": {"smiles": SOLVENTS["water"]}},
        {"type": "text", "text": task.question},
    ]
    grammar = task.grammar()
    assert grammar is not None
    constrained = {"structured_outputs": {"regex": grammar.value}}
    chat = client.chat.completions.create(
        model="moltc",
        messages=[{"role": "user", "content": content}],
        temperature=0,
        max_tokens=task.max_tokens,
        extra_body=constrained,
    )
    console.print(f"caffeine in water. {task.question}\n  -> {chat.choices[0].message.content}")
    console.rule("completions, molecules as tags in plain text, streamed")
    prompt = (
        f"[START_I_SMILES]{DRUGS['ibuprofen']}[END_I_SMILES] "
        f"[START_I_SMILES]{SOLVENTS['ethanol']}[END_I_SMILES] {task.question}\n"
    )
    console.print(f"ibuprofen in ethanol. {task.question}\n  -> ", end="")
    for chunk in client.completions.create(
        model="moltc",
        prompt=prompt,
        temperature=0,
        max_tokens=task.max_tokens,
        stream=True,
        extra_body=constrained,
    ):
        console.print(chunk.choices[0].text, end="")
    console.print()


def _screen(url: str, console: Console) -> list[Hit]:
    """Every drug in every solvent, and one molecule that is none."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from moltc_vllm.engines.http import HttpEngine
    from moltc_vllm.screening.report import Hit
    from moltc_vllm.tasks.engine import Pair

    console.rule("typed answers for a batch: POST /v1/interactions")
    solutes = {**DRUGS, "typing error": "CC(=O)Oc1ccccc1C(=O"}
    names = list(itertools.product(solutes, SOLVENTS))
    pairs = [
        Pair(row, (solutes[first], SOLVENTS[second])) for row, (first, second) in enumerate(names)
    ]
    begin = time.monotonic()
    answered = sorted(HttpEngine(url).submit("solvation", pairs))
    seconds = time.monotonic() - begin
    rows = [
        Hit(names[pair.row], (pair.molecules[0], pair.molecules[1]), answer)
        for pair, answer in answered
    ]
    heads = ("solute", "solvent", "kcal/mol", "between", "confidence", "status")
    table = Table(*heads, box=SIMPLE_HEAD)
    for row in [*rows[:5], *rows[-1:]]:
        answer = row.answer
        table.add_row(
            *row.names,
            "" if answer.value is None else f"{answer.value:.2f}",
            "" if answer.interval is None else "{:g}, {:g}".format(*answer.interval),
            "" if answer.confidence is None else f"{answer.confidence:.2g}",
            answer.status,
        )
    console.print(table)
    console.print(
        f"{len(rows)} pairs in {seconds:.2f} s; the bad molecule: {rows[-1].answer.error}"
    )
    return rows


def _report(path: Path, rows: list[Hit], url: str, note: str, console: Console) -> None:
    from collections import Counter

    import httpx

    from moltc_vllm.screening.heatmap import Cell, Heatmap
    from moltc_vllm.screening.report import Page, write_report
    from moltc_vllm.tasks import get_task

    counters = {
        line.split()[0]: float(line.split()[1])
        for line in httpx.get(f"{url}/metrics").text.splitlines()
        if line.startswith("moltc_") and "{" not in line
    }
    console.print(
        f"{len(DRUGS) + len(SOLVENTS)} different molecules: read "
        f"{counters.get('moltc_molecules_parsed_total', 0):.0f} times, encoded "
        f"{counters.get('moltc_molecules_encoded_total', 0):.0f} times"
    )
    task = get_task("solvation")
    first, second = (list(dict.fromkeys(row.names[place] for row in rows)) for place in (0, 1))
    cells = {
        (first.index(row.names[0]), second.index(row.names[1])): Cell.of(
            row.answer, row.answer.value
        )
        for row in rows
    }
    page = Page(
        title=f"{task.title} in kcal/mol",
        settings={"task": task.name, "server": url},
        counts=Counter(row.answer.status for row in rows),
        note=note,
        heatmap=Heatmap(first, second, cells, "kcal/mol"),
        hits=rows,
        roles=task.roles,
    )
    write_report(path, page)
    console.print(f"report: {path}")
