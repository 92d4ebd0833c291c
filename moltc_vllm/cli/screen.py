"""``moltc screen``: answer a task for every pair of a table, or of two libraries."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moltc_vllm.cli.engines import StandardizeOption
from moltc_vllm.cli.messages import fail, print_caution
from moltc_vllm.cli.progress import ProgressBars
from moltc_vllm.cli.screen_engines import (
    EXIT_ENGINE_FAILED,
    EngineOptions,
    ScreenEngine,
    parse_actors,
)
from moltc_vllm.cli.screen_output import ScreenProgressDisplay, print_estimate, print_summary
from moltc_vllm.screening.config import (
    PairingMode,
    ProcessingOrder,
    Ranking,
    RequiredFamiliarity,
    ScreenConfig,
)
from moltc_vllm.utils.errors import one_line

if TYPE_CHECKING:
    from moltc_vllm.screening.prepare import PreparedScreen

EXIT_INTERRUPTED = 130
EXIT_FAILED_ROWS = 3

_STDIN = Path("-")
_RESUME_HINT = "run the same command again to resume"


def screen(
    task: Annotated[str, typer.Option(help="Task to answer for every pair, e.g. solvation.")],
    out: Annotated[
        Path, typer.Option(help="Output folder; the same command resumes an unfinished screen.")
    ],
    pairs: Annotated[
        Path | None,
        typer.Option(help="File with both molecules of a pair in each row; `-` is standard input."),
    ] = None,
    left: Annotated[
        Path | None, typer.Option(help="File of first molecules; `-` is standard input.")
    ] = None,
    right: Annotated[
        Path | None, typer.Option(help="File of second molecules; `-` is standard input.")
    ] = None,
    columns: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Names of the molecule columns, in --pairs or in --left and --right."),
    ] = None,
    how: Annotated[
        PairingMode,
        typer.Option(
            help="Pairing mode: all of --left with all of --right (product), row by row (zip), or "
            "every two molecules of --left (triangle; in both directions unless the task is "
            "symmetric)."
        ),
    ] = ScreenConfig.how,
    question: Annotated[
        str | None, typer.Option(help="Your question, for the task `ask`.")
    ] = ScreenConfig.question,
    order: Annotated[
        ProcessingOrder,
        typer.Option(help="Processing order; `random` makes a partial run an unbiased sample."),
    ] = ScreenConfig.order,
    seed: Annotated[int, typer.Option(help="Seed of the random order.")] = ScreenConfig.seed,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Largest number of pairs, the first ones in processing order."),
    ] = ScreenConfig.limit,
    top: Annotated[int, typer.Option(min=0, help="Number of rows in top.csv.")] = Ranking.top_k,
    smallest: Annotated[
        bool, typer.Option("--smallest", help="Rank small values first in top.csv.")
    ] = Ranking.smallest,
    threshold: Annotated[
        float | None,
        typer.Option(help="Value, or confidence, that a row must reach to be in top.csv."),
    ] = Ranking.threshold,
    label: Annotated[
        str | None,
        typer.Option(
            help="Label to rank by in top.csv; default: the positive label of a yes/no task."
        ),
    ] = Ranking.label,
    familiarity: Annotated[
        RequiredFamiliarity | None,
        typer.Option(
            help="Familiarity that a row needs to be in top.csv: `known` molecules, or `similar` "
            "for known and similar ones; default: any."
        ),
    ] = Ranking.familiarity,
    coverage: Annotated[
        float,
        typer.Option(help="Coverage of the prediction intervals in the columns low and high."),
    ] = ScreenConfig.coverage,
    standardize: StandardizeOption = None,
    text: Annotated[
        bool,
        typer.Option(
            "--text",
            help="Keep the text that the model generates; slower, because the text is not "
            "generated otherwise.",
        ),
    ] = ScreenConfig.text,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with status 3 if any row failed.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint folder; default: the shipped moltc-mini.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="URL of a running server, used in place of --model.")
    ] = None,
    engine: Annotated[
        ScreenEngine,
        typer.Option(help="Inference engine to run in this process, or on a Ray cluster."),
    ] = ScreenEngine.vllm,
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of the Ray cluster for --engine ray; default: a cluster is started on "
            "this machine."
        ),
    ] = None,
    actors: Annotated[
        str,
        typer.Option(help="Number of engines on the Ray cluster, or a range.", metavar="N|MIN:MAX"),
    ] = "1",
    both_orders: Annotated[
        bool,
        typer.Option(
            "--both-orders",
            help="Average symmetric yes/no tasks over both orders of the molecules.",
        ),
    ] = False,
    part_rows: Annotated[
        int, typer.Option(min=1, help="Number of pairs per part of the output.")
    ] = ScreenConfig.part_rows,
    block: Annotated[
        int,
        typer.Option(
            min=1, help="Number of second molecules that are processed together and stay encoded."
        ),
    ] = ScreenConfig.block,
    retry_errors: Annotated[
        bool,
        typer.Option("--retry-errors", help="Submit pairs again that ended with status `error`."),
    ] = ScreenConfig.retry_errors,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Estimate time, disk and memory from about 1,000 pairs; write nothing to --out.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object as the last line.")
    ] = False,
) -> None:
    """Answer a task for every pair of a file, or of two libraries, into Parquet parts.

    Every pair is a row of the output, with an answer or with the reason for its failure. An
    interrupted screen is resumed by the same command. The files summary.json, top.csv
    and report.html are written beside the parts.
    """
    ranking = Ranking(top, smallest, threshold, label, familiarity)
    options = EngineOptions(
        engine,
        model,
        endpoint,
        address,
        parse_actors(actors),
        not text,
        both_orders,
        coverage,
        standardize,
    )
    if not 0 < coverage < 1:
        fail(f"--coverage must be between 0 and 1, e.g. 0.8, not {coverage:g}")
    if engine is ScreenEngine.ray and endpoint is not None:
        fail("--engine ray takes --model, not --endpoint")
    with (
        tempfile.TemporaryDirectory(prefix="moltc-screen-") as folder,
        ProgressBars("rows") as bars,
    ):
        scratch = Path(folder)
        config = ScreenConfig(
            task=task,
            out=scratch / "out" if dry_run else out,
            **_copy_streams({"pairs": pairs, "left": left, "right": right}, scratch),
            columns=columns or (None, None),
            how=how,
            question=question,
            order=order,
            seed=seed,
            limit=limit,
            text=text,
            coverage=coverage,
            part_rows=part_rows,
            block=block,
            retry_errors=retry_errors,
        )
        if dry_run:
            _run_estimate(config, ranking, options, bars, scratch / "sample", as_json)
            return
        failed_rows = _run_screen(config, ranking, options, bars, as_json)
    if strict and failed_rows:
        raise typer.Exit(EXIT_FAILED_ROWS)


def _copy_streams(files: dict[str, Path | None], scratch: Path) -> dict[str, Path | None]:
    """Copy standard input and pipes to files, because tables are read more than once."""
    streamed = [f"--{name}" for name, path in files.items() if path == _STDIN]
    if len(streamed) > 1:
        fail(f"standard input cannot be both {' and '.join(streamed)}")
    copied = dict(files)
    for name, path in files.items():
        if path is None or (path != _STDIN and (path.is_file() or not path.exists())):
            continue
        if path.is_dir():
            fail(f"--{name}: {path} is a folder")
        copied[name] = copy = scratch / ("stdin" if path == _STDIN else name)
        with copy.open("wb") as file:
            # Standard input stays open; the interpreter closes it.
            stream = contextlib.nullcontext(sys.stdin.buffer) if path == _STDIN else path.open("rb")
            with stream as source:
                shutil.copyfileobj(source, file)
    return copied


def _run_estimate(
    config: ScreenConfig,
    ranking: Ranking,
    options: EngineOptions,
    bars: ProgressBars,
    folder: Path,
    as_json: bool,
) -> None:
    from moltc_vllm.screening.estimate import estimate

    with _exit_on_error(config.out, options.endpoint):
        prepared = _prepare(config, ranking, options, bars)
        print_estimate(estimate(prepared.screen, options.open_engine(), folder), as_json)


def _run_screen(
    config: ScreenConfig,
    ranking: Ranking,
    options: EngineOptions,
    bars: ProgressBars,
    as_json: bool,
) -> int:
    """Run a screen to its end; return the number of failed rows."""
    from moltc_vllm.screening.finalize import finalize

    with _exit_on_error(config.out, options.endpoint):
        prepared = _prepare(config, ranking, options, bars)
    figures = _compute_missing(prepared, options, bars)
    with _exit_on_error(config.out, options.endpoint):
        summary = finalize(prepared.screen, ranking, figures)
    print_summary(config.out, summary, figures, as_json)
    return summary.failed


def _prepare(
    config: ScreenConfig, ranking: Ranking, options: EngineOptions, bars: ProgressBars
) -> PreparedScreen:
    from moltc_vllm.engines.factory import describe_model
    from moltc_vllm.screening.prepare import prepare
    from moltc_vllm.tasks import get_task

    task = get_task(config.task)
    ranking.check(task)
    _check_familiarity(ranking, options)
    print_caution(task)
    description = describe_model(config.task, options.model, options.endpoint, options.standardize)
    return prepare(
        config,
        {**description, "both_orders": options.both_orders},
        lambda name, rows: bars.print_line(f"{name}: {rows:,} rows read"),
    )


def _check_familiarity(ranking: Ranking, options: EngineOptions) -> None:
    """Reject --familiarity before a long screen if the checkpoint folder cannot tell it."""
    from moltc_vllm.checkpoints.shipped import shipped_checkpoint
    from moltc_vllm.models.familiarity import FAMILIARITY_FILE

    if ranking.familiarity is None or options.endpoint is not None:
        return
    if not ((options.model or shipped_checkpoint()) / FAMILIARITY_FILE).is_file():
        raise ValueError(
            f"--familiarity needs {FAMILIARITY_FILE} in the checkpoint folder: see moltc calibrate"
        )


def _compute_missing(
    prepared: PreparedScreen, options: EngineOptions, bars: ProgressBars
) -> dict[str, Any]:
    """Compute the missing parts; exit if not all of them could be computed.

    Returns:
        Figures of the run; empty if no part was missing.
    """
    from moltc_vllm.screening.run import run_screen
    from moltc_vllm.utils.signals import stop_on_signal

    screen = prepared.screen
    missing = screen.missing_parts()
    total = len(screen.plan)
    if not missing:
        bars.print_line(f"all {total:,} rows are done")
        return {}
    done = total - sum(screen.unanswered_rows(missing).values())
    if prepared.resumed:
        bars.print_line(f"resuming: {done:,} of {total:,} rows are done")
    with options.open_executor() as (executor, engine):
        bars.start_task("", done)
        display = ScreenProgressDisplay(bars, engine)
        started_at = time.monotonic()
        try:
            with (
                _exit_on_error(
                    screen.folder, options.endpoint, EXIT_ENGINE_FAILED, f"; {_RESUME_HINT}"
                ),
                stop_on_signal() as should_stop,
            ):
                is_complete = run_screen(screen, executor, display, should_stop)
        except KeyboardInterrupt:
            fail(f"interrupted; {_RESUME_HINT}", EXIT_INTERRUPTED)
        if not is_complete:
            fail(f"interrupted after finishing started parts; {_RESUME_HINT}", EXIT_INTERRUPTED)
        return display.figures(time.monotonic() - started_at, total - done)


@contextlib.contextmanager
def _exit_on_error(
    out: Path, endpoint: str | None, code: int = 2, suffix: str = ""
) -> Iterator[None]:
    """Exit with a one-line message if a file, a server or an engine fails."""
    import httpx

    from moltc_vllm.engines.http import ServerError
    from moltc_vllm.tasks.engine import EngineError

    try:
        yield
    except (EngineError, ServerError, ValueError) as error:
        fail(f"{one_line(error)}{suffix}", code)
    except httpx.HTTPError as error:
        fail(f"{endpoint}: {one_line(error)}{suffix}", code)
    except OSError as error:
        fail(f"{out}: {one_line(error)}{suffix}", code)
