"""``moltc evaluate``: a model's answers against measured data."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TextIO

import typer

from moltc_vllm.cli.engines import EngineName, open_engine
from moltc_vllm.cli.messages import fail
from moltc_vllm.cli.progress import ProgressBars

if TYPE_CHECKING:
    from moltc_vllm.data import Dataset
    from moltc_vllm.evaluate.scoring import Evaluation, MetricResult
    from moltc_vllm.tasks import Answer, Task
    from moltc_vllm.tasks.engine import Engine

INTERRUPTED, STOPPED = 130, 1


def evaluate(
    task: Annotated[str, typer.Option(help="What to ask, e.g. solvation.")],
    data: Annotated[Path, typer.Option(help="CSV or Parquet with molecules and targets.")],
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint folder; default: the shipped moltc-mini.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="URL of a running server.")] = None,
    engine: Annotated[EngineName, typer.Option(help="Without a server.")] = EngineName.vllm,
    split: Annotated[str | None, typer.Option(help="Only rows with this in `split`.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Draw so many measured rows at random.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of --limit and --bootstrap.")] = 0,
    beams: Annotated[int, typer.Option(min=1, help="Of a beam search; 1: greedy.")] = 1,
    pad_query: Annotated[
        bool, typer.Option("--pad-query", help="First token from a pad, as published; torch only.")
    ] = False,
    both_orders: Annotated[
        bool,
        typer.Option(
            "--both-orders/--one-order",
            help="Ask symmetric yes-or-no tasks in both orders; the chances' mean is the answer.",
        ),
    ] = True,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples for the 95 % intervals; 0: none.")
    ] = 1000,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, the last line on stdout.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for metrics.json, predictions.csv and a plot.")
    ] = None,
) -> None:
    """Ask about molecules that were measured, and say how good the answers are.

    Rows without an answer (bad molecule, error, text that could not be read) count as wrong in
    accuracy, F1, precision, recall and exact match; MAE, RMSE, R2, interval hit rate, AUROC, AUPR
    and calibration leave them out. Rows whose target is empty were not measured and are not asked.
    """
    from moltc_vllm.checkpoints.shipped import NAME
    from moltc_vllm.data import DataError, read_dataset
    from moltc_vllm.engines.symmetric import SymmetrizedEngine, is_symmetric_binary
    from moltc_vllm.evaluate.bootstrap import LEVEL
    from moltc_vllm.evaluate.scoring import evaluate as score
    from moltc_vllm.tasks import UnknownTaskError, get_task

    # Everything that can be wrong is, before a model is loaded.
    try:
        wanted = get_task(task)
        rows = read_dataset(data, wanted, split=split, limit=limit, seed=seed)
    except (UnknownTaskError, DataError) as error:
        fail(str(error))
    if not rows.rows:
        fail(f"{data.name} has no row to ask about: {rows.in_split} rows, none measured")
    if out is not None:
        _new_folder(out)
    stdout = _stdout_for_the_result()
    opened = open_engine(model, endpoint, engine, beams=beams, pad_query=pad_query)
    twice = both_orders and is_symmetric_binary(wanted)
    asked = _ask(SymmetrizedEngine(opened) if twice else opened, wanted, rows)
    evaluation = score(wanted, rows, asked.answers, resamples=bootstrap, seed=seed)
    name = str(endpoint or model or NAME)
    result = {
        "task": wanted.name,
        "unit": getattr(wanted.kind, "unit", None) or None,
        "data": {"name": rows.name, "sha256": rows.sha256},
        "split": split,
        "limit": limit,
        "seed": seed,
        "model": name,
        "engine": "http" if endpoint is not None else engine.value,
        "beams": beams,
        "pad_query": pad_query,
        "both_orders": twice,
        "point_estimate": _point_estimate(wanted, asked.answers),
        "partial": asked.stopped is not None,
        "stopped": asked.stopped,
        "bootstrap": {"resamples": bootstrap, "level": LEVEL},
        **evaluation.as_json(),
    }
    if out is not None:
        _write(out, result, wanted, rows, asked.answers, evaluation)
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False), file=stdout)
    else:
        _print(stdout, wanted, rows, evaluation, name, asked.stopped)
    stdout.flush()
    if asked.code:
        raise typer.Exit(asked.code)


def _point_estimate(task: Task, answers: dict[int, Answer]) -> str | None:
    """Whether numbers are those in the texts, or means over the intervals' probabilities."""
    from moltc_vllm.tasks import Number

    if not isinstance(task.kind, Number):
        return None
    values = [(one.value, one.stated) for one in answers.values() if one.value is not None]
    return "expected value" if any(value != stated for value, stated in values) else "text"


def _stdout_for_the_result() -> TextIO:
    """Keep standard output for the result, and send everyone else there to standard error.

    vLLM logs to it, from several processes and until they are gone, which is after the result.
    """
    sys.stdout.flush()
    try:
        stdout = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    except (OSError, ValueError):  # no file, as where commands are called by tests
        return sys.stdout
    return open(stdout, "w", encoding=sys.stdout.encoding)


class _Asked(NamedTuple):
    """The answers by row, and if the asking did not come to its end, why, and the exit code."""

    answers: dict[int, Answer]
    stopped: str | None = None
    code: int = 0


def _ask(engine: Engine, task: Task, data: Dataset) -> _Asked:
    """Ask about all rows; what was answered before an interruption or a failure is kept."""
    import httpx

    from moltc_vllm.engines.http import ServerError
    from moltc_vllm.evaluate.predict import ask
    from moltc_vllm.tasks.engine import EngineError

    answers: dict[int, Answer] = {}
    failed = 0
    try:
        with (
            ProgressBars("rows") as bars,
            contextlib.closing(ask(engine, task, data.rows)) as answered,
        ):
            for row, answer in answered:
                answers[row.number] = answer
                failed += answer.status != "ok"
                bars.update("", len(answers), len(data.rows), f"{failed} failed")
    except KeyboardInterrupt:
        return _Asked(answers, "interrupted", INTERRUPTED)
    except Exception as error:
        # The engine may have been hit by the same Ctrl-C, and fall over when it is closed.
        if _follows_interrupt(error):
            return _Asked(answers, "interrupted", INTERRUPTED)
        reason = " ".join(str(error).split())
        if answers:
            return _Asked(answers, f"{type(error).__name__}: {reason}", STOPPED)
        if isinstance(error, (EngineError, ServerError, httpx.HTTPError)):
            fail(reason, STOPPED)
        raise
    return _Asked(answers)


def _follows_interrupt(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _new_folder(out: Path) -> None:
    """Make the folder, unless it holds an evaluation already."""
    if (out / "metrics.json").exists():
        fail(f"{out} has a metrics.json already; it is not written over")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"{out}: {error.strerror}")


def _write(
    out: Path,
    result: dict[str, Any],
    task: Task,
    data: Dataset,
    answers: dict[int, Answer],
    evaluation: Evaluation,
) -> None:
    from moltc_vllm.evaluate.plots import PlotError, write_plot
    from moltc_vllm.evaluate.predictions import write_predictions

    text = json.dumps(result, allow_nan=False, indent=2)
    (out / "metrics.json").write_text(text + "\n", encoding="utf-8")
    write_predictions(out / "predictions.csv", data, answers)
    try:
        title = _title(task, data, result["model"], result["stopped"])
        write_plot(out / "evaluation.png", title, task, data, answers, evaluation)
    except PlotError as error:
        typer.echo(f"moltc: {error}", err=True)


def _title(task: Task, data: Dataset, model: str, stopped: str | None) -> str:
    split = f", {data.split}" if data.split is not None else ""
    partial = ", PARTIAL" if stopped else ""
    return f"{task.title}: {model} on {data.name}{split}, {len(data.rows):,} rows{partial}"


def _print(
    stdout: TextIO,
    task: Task,
    data: Dataset,
    evaluation: Evaluation,
    model: str,
    stopped: str | None,
) -> None:
    """The tables for people."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(file=stdout, highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(_title(task, data, model, stopped))}[/]")
    counts = evaluation.counts
    if stopped is not None:
        console.print(
            f"[yellow]Partial ({escape(stopped)}): {counts.not_reached} of {counts.asked} rows "
            "were not reached; everything below is of the other ones.[/]"
        )
    console.print(
        f"{counts.rows} rows, {counts.measured} measured, {counts.asked} asked: "
        f"{counts.answered} answered, {counts.unparsed} unparsed, "
        f"{counts.bad_molecules} bad molecules, {counts.errors} errors"
    )
    unit = getattr(task.kind, "unit", "")
    table = Table("metric", "value", "95 % interval", "rows", "unanswered", box=SIMPLE_HEAD)
    for column in (*table.columns[:2], table.columns[3]):
        column.no_wrap = True
    for name, metric in evaluation.metrics.items():
        shown = f"{name}, {unit}" if unit and name in {"mae", "rmse"} else name
        table.add_row(shown, *_cells(metric))
    if evaluation.calibration is not None:
        table.add_row("calibration_error", *_cells(evaluation.calibration.error))
    console.print(table)
    if evaluation.calibration is not None and evaluation.calibration.bins:
        rate = evaluation.calibration.of.replace("_", " ")
        bins = Table("confidence, mean of the bin", rate, "rows", box=SIMPLE_HEAD)
        for one in evaluation.calibration.bins:
            bins.add_row(f"{one.confidence:.3g}", f"{one.hit_rate:.3f}", str(one.rows))
        console.print(bins)


def _cells(metric: MetricResult) -> tuple[str, str, str, str]:
    interval = "" if metric.low is None else f"{metric.low:.4g} to {metric.high:.4g}"
    if metric.reason is not None:
        interval = f"({metric.reason})"
    value = "–" if metric.value is None else f"{metric.value:.4g}"
    return value, interval, str(metric.rows), metric.failed
