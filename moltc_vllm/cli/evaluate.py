"""``moltc evaluate``: compare a model's answers with measured data."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TextIO

import typer

from moltc_vllm.cli.engines import EngineName, StandardizeOption, open_engine
from moltc_vllm.cli.messages import fail, print_caution
from moltc_vllm.cli.progress import ProgressBars
from moltc_vllm.utils.coverage import DEFAULT_COVERAGE
from moltc_vllm.utils.errors import one_line

if TYPE_CHECKING:
    from moltc_vllm.data import Dataset
    from moltc_vllm.evaluate.scoring import Evaluation, MetricResult
    from moltc_vllm.tasks import Answer, Task
    from moltc_vllm.tasks.engine import Engine

EXIT_INTERRUPTED, EXIT_STOPPED = 130, 1
_METRICS_WITH_UNIT = frozenset({"mae", "rmse", "mean_interval_width"})


def evaluate(
    task: Annotated[str, typer.Option(help="Task to evaluate, e.g. solvation.")],
    data: Annotated[
        Path, typer.Option(help="Table with columns of molecules and targets: CSV, TSV or Parquet.")
    ],
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint folder; default: the shipped moltc-mini.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="URL of a running server to use instead of an engine.")
    ] = None,
    engine: Annotated[
        EngineName, typer.Option(help="Inference engine to run in this process.")
    ] = EngineName.vllm,
    split: Annotated[
        str | None, typer.Option(help="Value of the column `split` whose rows are evaluated.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of measured rows to sample; default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --limit and --bootstrap.")] = 0,
    beams: Annotated[
        int, typer.Option(min=1, help="Number of beams of the beam search; 1: greedy decoding.")
    ] = 1,
    pad_query: Annotated[
        bool,
        typer.Option(
            "--pad-query",
            help="Predict the first token from a padding position, as the published code does; "
            "torch engine only.",
        ),
    ] = False,
    standardize: StandardizeOption = None,
    both_orders: Annotated[
        bool,
        typer.Option(
            "--both-orders/--one-order",
            help="Average the probabilities of both orders of the molecules in symmetric tasks "
            "with two labels.",
        ),
    ] = True,
    coverage: Annotated[
        float,
        typer.Option(help="Coverage of the prediction intervals, compared with that measured."),
    ] = DEFAULT_COVERAGE,
    bootstrap: Annotated[
        int,
        typer.Option(min=0, help="Number of resamples for the 95 % intervals; 0: no intervals."),
    ] = 1000,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the result as a JSON object on the last line."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for metrics.json, predictions.csv and evaluation.png."),
    ] = None,
) -> None:
    """Evaluate a model on rows with measured targets.

    Rows without an answer (bad molecule, error, text that could not be parsed) count as wrong in
    accuracy, F1, precision, recall and exact match; MAE, RMSE, R2, metrics of intervals, AUROC,
    AUPR and calibration leave them out. Rows with an empty target are not evaluated.
    """
    from moltc_vllm.checkpoints.shipped import NAME
    from moltc_vllm.engines.symmetric import SymmetrizedEngine, is_symmetric_binary
    from moltc_vllm.evaluate.bootstrap import LEVEL
    from moltc_vllm.evaluate.scoring import evaluate as evaluate_answers

    # All input is validated before the model is loaded, because loading takes long.
    known_task, dataset = _read_data(task, data, split, limit, seed)
    if out is not None:
        _create_folder(out)
    stdout = _reserve_stdout()
    print_caution(known_task)
    asked_task = _asked_task(known_task, model, endpoint)
    opened = open_engine(
        model,
        endpoint,
        engine,
        beams=beams,
        pad_query=pad_query,
        standardize=standardize,
        coverage=coverage,
    )
    symmetrized = both_orders and is_symmetric_binary(asked_task)
    collected = _collect_answers(
        SymmetrizedEngine(opened) if symmetrized else opened, asked_task, dataset
    )
    evaluation = evaluate_answers(
        known_task, dataset, collected.answers, resamples=bootstrap, seed=seed
    )
    result = {
        "task": known_task.name,
        "asked_task": asked_task.name,
        "unit": getattr(known_task.kind, "unit", None) or None,
        "data": {"name": dataset.name, "sha256": dataset.sha256},
        "split": split,
        "limit": limit,
        "seed": seed,
        "model": str(endpoint or model or NAME),
        "engine": "http" if endpoint is not None else engine.value,
        "beams": beams,
        "pad_query": pad_query,
        "standardize": standardize,
        "both_orders": symmetrized,
        "coverage": coverage,
        "point_estimate": _point_estimate(known_task, collected.answers),
        "partial": collected.stopped is not None,
        "stopped": collected.stopped,
        "bootstrap": {"resamples": bootstrap, "level": LEVEL},
        **evaluation.as_json(),
    }
    title = _title(known_task, dataset, result)
    if out is not None:
        _write_files(out, title, result, known_task, dataset, collected.answers, evaluation)
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False), file=stdout)
    else:
        _print_tables(stdout, title, known_task, evaluation, collected.stopped)
    stdout.flush()
    if collected.exit_code:
        raise typer.Exit(collected.exit_code)


def _read_data(
    task: str, path: Path, split: str | None, limit: int | None, seed: int
) -> tuple[Task, Dataset]:
    """Read the rows to evaluate; exit if the task or the data are not usable."""
    from moltc_vllm.data import DataError, read_dataset
    from moltc_vllm.tasks import UnknownTaskError, get_task

    try:
        known_task = get_task(task)
        dataset = read_dataset(path, known_task, split=split, limit=limit, seed=seed)
    except (UnknownTaskError, DataError) as error:
        fail(str(error))
    if not dataset.rows:
        fail(
            f"{path.name} has no row to evaluate: "
            f"none of its {dataset.in_split} rows has a measured target"
        )
    return known_task, dataset


def _asked_task(task: Task, model: Path | None, endpoint: str | None) -> Task:
    """Return the task to ask of the model: its fallback, if the model is older than the task."""
    import httpx

    from moltc_vllm.engines.factory import model_tasks
    from moltc_vllm.engines.http import ServerError
    from moltc_vllm.tasks import resolve_task

    if task.fallback is None:
        return task
    try:
        asked = resolve_task(task, model_tasks(model, endpoint))
    except (ValueError, ServerError, httpx.HTTPError) as error:  # includes CheckpointError
        fail(one_line(error))
    if asked != task:
        typer.echo(
            f"moltc: the model does not have the task {task.name}; it answers {asked.name} instead",
            err=True,
        )
    return asked


def _point_estimate(task: Task, answers: Mapping[int, Answer]) -> str | None:
    """Return whether values are the generated numbers or expectations over intervals."""
    from moltc_vllm.tasks import Number

    if not isinstance(task.kind, Number):
        return None
    is_expectation = any(
        answer.value is not None and answer.value != answer.generated_value
        for answer in answers.values()
    )
    return "expected value" if is_expectation else "text"


def _reserve_stdout() -> TextIO:
    """Redirect standard output to standard error and return the original standard output.

    vLLM writes log lines to standard output from several processes, even after the result is
    printed. The redirection keeps the result the only output on standard output.
    """
    sys.stdout.flush()
    try:
        stdout = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    except (OSError, ValueError):  # not a file, as in tests that call the command in-process
        return sys.stdout
    return open(stdout, "w", encoding=sys.stdout.encoding)


class _CollectedAnswers(NamedTuple):
    """Answers of an engine, possibly not of all rows.

    Attributes:
        answers: Answers by row number.
        stopped: Reason why rows are missing; ``None`` if the engine reached all of them.
        exit_code: Exit code of the command.
    """

    answers: dict[int, Answer]
    stopped: str | None = None
    exit_code: int = 0


def _collect_answers(engine: Engine, task: Task, data: Dataset) -> _CollectedAnswers:
    """Submit all rows; keep the answers received before an interruption or a failure."""
    import httpx

    from moltc_vllm.engines.http import ServerError
    from moltc_vllm.evaluate.predict import predict_rows
    from moltc_vllm.tasks.engine import EngineError

    answers: dict[int, Answer] = {}
    failed = 0
    try:
        with (
            ProgressBars("rows") as bars,
            contextlib.closing(predict_rows(engine, task, data.rows)) as answered,
        ):
            for row, answer in answered:
                answers[row.number] = answer
                failed += answer.status != "ok"
                bars.update("", len(answers), len(data.rows), f"{failed} failed")
    except KeyboardInterrupt:
        return _CollectedAnswers(answers, "interrupted", EXIT_INTERRUPTED)
    except Exception as error:
        # Ctrl-C may have reached the engine's processes too, so that closing the engine fails.
        if _caused_by_interrupt(error):
            return _CollectedAnswers(answers, "interrupted", EXIT_INTERRUPTED)
        if answers:
            reason = f"{type(error).__name__}: {one_line(error)}"
            return _CollectedAnswers(answers, reason, EXIT_STOPPED)
        if isinstance(error, (EngineError, ServerError, httpx.HTTPError)):
            fail(one_line(error), EXIT_STOPPED)
        raise
    return _CollectedAnswers(answers)


def _caused_by_interrupt(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _create_folder(out: Path) -> None:
    """Create the folder for results, unless it already holds an evaluation."""
    if (out / "metrics.json").exists():
        fail(f"--out: {out} already has a metrics.json; choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"--out: {out}: {error.strerror}")


def _write_files(
    out: Path,
    title: str,
    result: Mapping[str, Any],
    task: Task,
    data: Dataset,
    answers: Mapping[int, Answer],
    evaluation: Evaluation,
) -> None:
    from moltc_vllm.evaluate.plots import PlotError, write_plot
    from moltc_vllm.evaluate.predictions import write_predictions

    text = json.dumps(result, allow_nan=False, indent=2)
    (out / "metrics.json").write_text(text + "\n", encoding="utf-8")
    write_predictions(out / "predictions.csv", data, answers)
    try:
        write_plot(out / "evaluation.png", title, task, data, answers, evaluation)
    except PlotError as error:
        typer.echo(f"moltc: {error}", err=True)


def _title(task: Task, data: Dataset, result: Mapping[str, Any]) -> str:
    split = f", {data.split}" if data.split is not None else ""
    partial = ", PARTIAL" if result["partial"] else ""
    return (
        f"{task.title}: {result['model']} on {data.name}{split}, {len(data.rows):,} rows{partial}"
    )


def _print_tables(
    stdout: TextIO, title: str, task: Task, evaluation: Evaluation, stopped: str | None
) -> None:
    """Print counts, metrics and calibration as tables."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(file=stdout, highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(title)}[/]")
    counts = evaluation.counts
    if stopped is not None:
        console.print(
            f"[yellow]Partial ({escape(stopped)}): {counts.not_reached} of {counts.asked} rows "
            "were not reached; the results below are of the other rows.[/]"
        )
    console.print(
        f"{counts.rows} rows, {counts.measured} measured, {counts.asked} evaluated: "
        f"{counts.answered} answered, {counts.unparsed} unparsed, "
        f"{counts.bad_molecules} bad molecules, {counts.errors} errors"
    )
    unit = getattr(task.kind, "unit", "")
    table = Table("metric", "value", "95 % interval", "rows", "unanswered rows", box=SIMPLE_HEAD)
    for column in (*table.columns[:2], table.columns[3]):
        column.no_wrap = True
    for name, metric in evaluation.metrics.items():
        label = (
            f"{name}, {unit}" if unit and name in {"mae", "rmse", "mean_interval_width"} else name
        )
        table.add_row(label, *_metric_cells(metric))
    if evaluation.calibration is not None:
        table.add_row("calibration_error", *_metric_cells(evaluation.calibration.error))
    console.print(table)
    if evaluation.calibration is not None and evaluation.calibration.bins:
        rate = evaluation.calibration.of.replace("_", " ")
        bins = Table("mean confidence of the bin", rate, "rows", box=SIMPLE_HEAD)
        for entry in evaluation.calibration.bins:
            bins.add_row(f"{entry.confidence:.3g}", f"{entry.hit_rate:.3f}", str(entry.rows))
        console.print(bins)


def _metric_cells(metric: MetricResult) -> tuple[str, str, str, str]:
    interval = "" if metric.low is None else f"{metric.low:.4g} to {metric.high:.4g}"
    if metric.reason is not None:
        interval = f"({metric.reason})"
    value = "–" if metric.value is None else f"{metric.value:.4g}"
    return value, interval, str(metric.rows), metric.failed
