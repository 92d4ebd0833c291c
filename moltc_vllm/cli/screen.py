"""``moltc screen``: a question about millions of pairs, every one of them answered."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moltc_vllm.cli.engines import EngineName, open_engine
from moltc_vllm.cli.messages import fail
from moltc_vllm.cli.progress import Bars

if TYPE_CHECKING:
    from moltc_vllm.screen.prepare import Prepared, Wish
    from moltc_vllm.screen.summary import Ranking, Summary
    from moltc_vllm.tasks.engine import Engine

INTERRUPTED, STOPPED, FAILED_ROWS = 130, 1, 3
_SHOWN = 5


class How(enum.StrEnum):
    """How two files are paired."""

    product = "product"
    zip = "zip"
    triangle = "triangle"


def screen(
    task: Annotated[str, typer.Option(help="What to ask about every pair, e.g. solvation.")],
    out: Annotated[Path, typer.Option(help="Folder of the answers; run again to go on.")],
    pairs: Annotated[
        Path | None, typer.Option(help="File with both molecules of a pair in each row.")
    ] = None,
    left: Annotated[Path | None, typer.Option(help="File of first molecules.")] = None,
    right: Annotated[Path | None, typer.Option(help="File of second molecules.")] = None,
    columns: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Where the molecules are, in --pairs or in --left and --right."),
    ] = None,
    how: Annotated[
        How, typer.Option(help="All of left with all of right, row by row, or every two of left.")
    ] = How.product,
    question: Annotated[str | None, typer.Option(help="For the task `ask`.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many pairs, the first to be worked off.")
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="Rows of top.csv.")] = 100,
    smallest: Annotated[
        bool, typer.Option("--smallest", help="Small values are at the top.")
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(help="At the top only from this value or confidence on.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="At the top only rows with this label.")] = None,
    text: Annotated[
        bool,
        typer.Option("--text", help="Keep the model's own words: slower, as all are generated."),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit status 3 if any row has no answer.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint folder; default: the shipped moltc-mini.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="URL of a running server.")] = None,
    engine: Annotated[EngineName, typer.Option(help="Without a server.")] = EngineName.vllm,
    both_orders: Annotated[
        bool, typer.Option("--both-orders", help="Ask symmetric yes/no questions in both orders.")
    ] = False,
    part_rows: Annotated[int, typer.Option(min=1, help="Pairs of a part of the output.")] = 5_000,
    block: Annotated[
        int, typer.Option(min=1, help="Second molecules that are worked off together.")
    ] = 1_024,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON object as the last line, for programs.")
    ] = False,
) -> None:
    """Ask about every pair of a file, or of two libraries, into Parquet parts.

    Every row of the input is a row of the output, with an answer or with the reason why there is
    none. A screen that was ended in any way goes on when the command is given again.
    """
    from moltc_vllm.evaluate.orders import BothOrders
    from moltc_vllm.screen.prepare import Wish
    from moltc_vllm.screen.summary import Ranking

    wish = Wish(
        task=task,
        out=out,
        pairs=pairs,
        left=left,
        right=right,
        columns=columns or (None, None),
        how=how.value,
        question=question,
        limit=limit,
        text=text,
        part_rows=part_rows,
        block=block,
    )

    def opened() -> Engine:
        made = open_engine(model, endpoint, engine, score=not text)
        return BothOrders(made) if both_orders else made

    with Bars("rows") as bars:
        prepared = _prepare(wish, model, endpoint, both_orders, bars)
        _run(prepared, opened, bars)
        summary = _finish(prepared, Ranking(top, smallest, threshold, label))
    if as_json:
        typer.echo(json.dumps(summary.as_json()))
    else:
        _print(out, summary)
    if strict and summary.failed:
        raise typer.Exit(FAILED_ROWS)


def _prepare(
    wish: Wish, model: Path | None, endpoint: str | None, both_orders: bool, bars: Bars
) -> Prepared:
    import httpx

    from moltc_vllm.models.checkpoint import CheckpointError
    from moltc_vllm.screen.http import ServerError
    from moltc_vllm.screen.prepare import prepare

    try:
        asked = {**_model(model, endpoint), "both_orders": both_orders}
        return prepare(wish, asked, lambda name, rows: bars.tell(f"{name}: {rows:,} rows read"))
    except (CheckpointError, ServerError, ValueError) as error:
        fail(str(error))
    except (httpx.HTTPError, OSError) as error:
        fail(f"{endpoint or wish.out}: {' '.join(str(error).split())}")


def _model(model: Path | None, endpoint: str | None) -> dict[str, Any]:
    """What tells a model from another one: a server's name of it, or its weights."""
    if endpoint is not None:
        from moltc_vllm.screen import HttpEngine

        return {"served": HttpEngine(endpoint).served()}
    from moltc_vllm.models.checkpoint import load_config, weights_checksum
    from moltc_vllm.shipped import shipped_checkpoint

    folder = model or shipped_checkpoint()
    load_config(folder)
    return {"name": folder.resolve().name, "sha256": weights_checksum(folder)}


def _run(prepared: Prepared, open_it: Callable[[], Engine], bars: Bars) -> None:
    """Answer what is missing; the command ends here if not all of it could be."""
    import httpx

    from moltc_vllm.interruption import interruptible
    from moltc_vllm.screen.http import ServerError
    from moltc_vllm.screen.run import run
    from moltc_vllm.tasks.engine import EngineError

    screen = prepared.screen
    missing = screen.missing()
    total = len(screen.plan)
    if not missing:
        bars.tell(f"all {total:,} rows are there")
        return
    before = total - sum(map(screen.size, missing))
    if prepared.goes_on:
        bars.tell(f"going on: {before:,} of {total:,} rows are there")
    opened = open_it()
    bars.begin("", before)
    again = "run the same command again to go on"
    try:
        with interruptible() as interrupted:
            whole = run(screen, opened, _Watcher(bars), interrupted)
    except KeyboardInterrupt:
        fail(f"interrupted; {again}", INTERRUPTED)
    except (EngineError, ServerError, httpx.HTTPError) as error:
        fail(f"{' '.join(str(error).split())}; {again}", STOPPED)
    if not whole:
        fail(f"interrupted after the parts that were begun; {again}", INTERRUPTED)


class _Watcher:
    def __init__(self, bars: Bars) -> None:
        self._bars = bars

    def at(self, done: int, total: int, failed: int) -> None:
        self._bars.at("", done, total, f"{failed:,} failed")


def _finish(prepared: Prepared, ranking: Ranking) -> Summary:
    from moltc_vllm.screen.summary import summarise, write_summary

    screen = prepared.screen
    summary = summarise(screen.folder, screen.parts, screen.task, ranking)
    write_summary(screen.folder, summary, {"task": screen.task.name, "parts": screen.parts})
    return summary


def _print(out: Path, summary: Summary) -> None:
    counts = ", ".join(f"{count:,} {status}" for status, count in summary.statuses.most_common())
    typer.echo(f"{out}: {summary.rows:,} rows: {counts or 'none'}")
    if summary.mean is not None:
        typer.echo(f"values from {summary.low:g} to {summary.high:g}, mean {summary.mean:g}")
    for name, count in summary.labels.most_common(_SHOWN):
        typer.echo(f"  {count:>10,}  {name}")
    for reason, count in summary.reasons.most_common(_SHOWN):
        typer.echo(f"  {count:>10,}  {reason}")
