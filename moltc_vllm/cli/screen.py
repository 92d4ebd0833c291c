"""``moltc screen``: a question about millions of pairs, every one of them answered."""

from __future__ import annotations

import contextlib
import enum
import importlib.util
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moltc_vllm.cli import engines
from moltc_vllm.cli.engines import open_engine
from moltc_vllm.cli.messages import fail
from moltc_vllm.cli.progress import ProgressBars

if TYPE_CHECKING:
    from moltc_vllm.screening.estimate import Estimate
    from moltc_vllm.screening.prepare import PreparedScreen, ScreenConfig
    from moltc_vllm.screening.run import PartExecutor, Progress
    from moltc_vllm.screening.summary import Ranking, Summary
    from moltc_vllm.tasks.engine import Engine

INTERRUPTED, STOPPED, FAILED_ROWS = 130, 1, 3
_SHOWN = 5
_STDIN = Path("-")


class PairingMode(enum.StrEnum):
    """PairingMode two files are paired."""

    product = "product"
    zip = "zip"
    triangle = "triangle"


class EngineName(enum.StrEnum):
    """Where answers are computed."""

    vllm = "vllm"
    torch = "torch"
    http = "http"
    ray = "ray"


class ProcessingOrder(enum.StrEnum):
    """In which order pairs are worked off."""

    given = "given"
    random = "random"


def screen(
    task: Annotated[str, typer.Option(help="What to ask about every pair, e.g. solvation.")],
    out: Annotated[Path, typer.Option(help="Folder of the answers; run again to go on.")],
    pairs: Annotated[
        Path | None,
        typer.Option(help="File with both molecules of a pair in each row; -: standard input."),
    ] = None,
    left: Annotated[Path | None, typer.Option(help="File of first molecules, or -.")] = None,
    right: Annotated[Path | None, typer.Option(help="File of second molecules, or -.")] = None,
    columns: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Where the molecules are, in --pairs or in --left and --right."),
    ] = None,
    how: Annotated[
        PairingMode,
        typer.Option(help="All of left with all of right, row by row, or every two of left."),
    ] = PairingMode.product,
    question: Annotated[str | None, typer.Option(help="For the task `ask`.")] = None,
    order: Annotated[
        ProcessingOrder, typer.Option(help="Of work; the first pairs of a random one are a sample.")
    ] = ProcessingOrder.given,
    seed: Annotated[int, typer.Option(help="Of a random order.")] = 0,
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
    address: Annotated[
        str | None,
        typer.Option(help="Of a Ray cluster, for --engine ray; default: one on this machine."),
    ] = None,
    actors: Annotated[
        str, typer.Option(help="Engines on the cluster, so many or FROM:TO.", metavar="N|N:M")
    ] = "1",
    both_orders: Annotated[
        bool, typer.Option("--both-orders", help="Ask symmetric yes/no questions in both orders.")
    ] = False,
    part_rows: Annotated[int, typer.Option(min=1, help="Pairs of a part of the output.")] = 5_000,
    block: Annotated[
        int, typer.Option(min=1, help="Second molecules that are worked off together.")
    ] = 1_024,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Ask again about pairs that ended in an error.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what it will take; answers about 1,000 pairs."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON object as the last line, for programs.")
    ] = False,
) -> None:
    """Ask about every pair of a file, or of two libraries, into Parquet parts.

    Every row of the input is a row of the output, with an answer or with the reason why there is
    none. A screen that was ended in any way goes on when the command is given again. Beside the
    parts stand summary.json, top.csv and report.html.
    """
    from moltc_vllm.engines.symmetric import SymmetrizedEngine
    from moltc_vllm.screening.finalize import finalize
    from moltc_vllm.screening.prepare import ScreenConfig
    from moltc_vllm.screening.run import LocalExecutor
    from moltc_vllm.screening.summary import Ranking
    from moltc_vllm.utils.signals import block_sigint_in_children

    on_ray = engine is EngineName.ray
    between = _between(actors)
    if on_ray and endpoint is not None:
        fail("the engine ray takes a model, not an endpoint")
    # What one engine of a cluster does is tried here.
    here = engines.EngineName.vllm if on_ray else engines.EngineName(engine.value)

    def opened() -> Engine:
        with block_sigint_in_children():
            made = open_engine(model, endpoint, here, score=not text)
        return SymmetrizedEngine(made) if both_orders else made

    @contextlib.contextmanager
    def made() -> Iterator[tuple[PartExecutor, Engine | None]]:
        if on_ray:
            with _cluster(model, address, between, not text, both_orders) as cluster:
                yield cluster, None
        else:
            answering = opened()
            yield LocalExecutor(answering), answering

    with tempfile.TemporaryDirectory(prefix="moltc-screen-") as name, ProgressBars("rows") as bars:
        spare = Path(name)
        files = _seekable({"pairs": pairs, "left": left, "right": right}, spare)
        config = ScreenConfig(
            task=task,
            out=out,
            **files,
            columns=columns or (None, None),
            how=how.value,
            question=question,
            order=order.value,
            seed=seed,
            limit=limit,
            text=text,
            part_rows=part_rows,
            block=block,
            retry_errors=retry_errors,
        )
        if dry_run:
            config = replace(config, out=spare / "out")
        ranking = Ranking(top, smallest, threshold, label)
        with _failing(out, endpoint):
            prepared = _prepare(config, ranking, model, endpoint, both_orders, bars)
            if dry_run:
                _tell(_estimate(prepared, opened, spare), as_json)
                return
        figures = _run(prepared, made, endpoint, bars)
        with _failing(out, endpoint):
            summary = finalize(prepared.screen, ranking, figures)
    if as_json:
        typer.echo(json.dumps({**summary.as_json(), "run": figures}))
    else:
        _print(out, summary)
    if strict and summary.failed:
        raise typer.Exit(FAILED_ROWS)


def _seekable(files: dict[str, Path | None], spare: Path) -> dict[str, Path | None]:
    """Standard input and pipes as files: they are read more than once."""
    named = [name for name, path in files.items() if path == _STDIN]
    if len(named) > 1:
        fail(f"standard input cannot be both {' and '.join(named)}")
    copied = dict(files)
    for name, path in files.items():
        if path is None or (path != _STDIN and (path.is_file() or not path.exists())):
            continue
        if path.is_dir():
            fail(f"{path} is a folder")
        copied[name] = copy = spare / ("stdin" if path == _STDIN else name)
        with copy.open("wb") as file:
            # Standard input is not ours to close.
            pipe = contextlib.nullcontext(sys.stdin.buffer) if path == _STDIN else path.open("rb")
            with pipe as source:
                shutil.copyfileobj(source, file)
    return copied


@contextlib.contextmanager
def _failing(out: Path, endpoint: str | None, code: int = 2, more: str = "") -> Iterator[None]:
    """What can go wrong with files, servers and engines is one line, and ends the command."""
    import httpx

    from moltc_vllm.engines.http import ServerError
    from moltc_vllm.tasks.engine import EngineError

    try:
        yield
    except (EngineError, ServerError, ValueError) as error:
        fail(f"{' '.join(str(error).split())}{more}", code)
    except httpx.HTTPError as error:
        fail(f"{endpoint}: {' '.join(str(error).split())}{more}", code)
    except OSError as error:
        fail(f"{out}: {' '.join(str(error).split())}{more}", code)


def _prepare(
    config: ScreenConfig,
    ranking: Ranking,
    model: Path | None,
    endpoint: str | None,
    both_orders: bool,
    bars: ProgressBars,
) -> PreparedScreen:
    from moltc_vllm.engines.factory import describe_model
    from moltc_vllm.screening.prepare import prepare
    from moltc_vllm.tasks import get_task

    ranking.check(get_task(config.task))
    asked = {**describe_model(config.task, model, endpoint), "both_orders": both_orders}
    return prepare(config, asked, lambda name, rows: bars.print_line(f"{name}: {rows:,} rows read"))


def _estimate(prepared: PreparedScreen, open_it: Callable[[], Engine], spare: Path) -> Estimate:
    from moltc_vllm.screening.estimate import estimate

    folder = spare / "some"
    folder.mkdir()
    return estimate(prepared.screen, open_it(), folder)


def _tell(found: Estimate, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    unread = ", ".join(f"{count:,} of the {name}s" for name, count in found.unread.items() if count)
    typer.echo(
        f"{found.pairs:,} pairs in {found.parts:,} parts; "
        f"rows that cannot be read: {unread or 'none'}"
    )
    typer.echo(
        f"{found.asked:,} pairs tried, {found.failed:,} failed, {found.pairs_per_s:,.1f} pairs/s: "
        f"about {_duration(found.seconds)}"
    )
    typer.echo(
        f"about {found.disk_bytes / 1e6:,.1f} MB on disk; {found.memory_bytes / 2**30:.1f} GiB of "
        "memory, however many pairs"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _run(
    prepared: PreparedScreen,
    made: Callable[[], contextlib.AbstractContextManager[tuple[PartExecutor, Engine | None]]],
    endpoint: str | None,
    bars: ProgressBars,
) -> dict[str, Any]:
    """Answer what is missing; the command ends here if not all of it could be.

    Returns:
        Figures of the run; none if there was nothing to do.
    """
    from moltc_vllm.screening.run import run_with_executor
    from moltc_vllm.utils.signals import stop_on_signal

    screen = prepared.screen
    missing = screen.missing()
    total = len(screen.plan)
    if not missing:
        bars.print_line(f"all {total:,} rows are there")
        return {}
    before = total - sum(screen.open_rows(missing).values())
    if prepared.resumed:
        bars.print_line(f"going on: {before:,} of {total:,} rows are there")
    again = "run the same command again to go on"
    with made() as (maker, engine):
        bars.start_task("", before)
        watcher = _ScreenProgressDisplay(bars, engine)
        begin = time.monotonic()
        try:
            with (
                _failing(screen.folder, endpoint, STOPPED, f"; {again}"),
                stop_on_signal() as interrupted,
            ):
                whole = run_with_executor(maker, screen, watcher, interrupted)
        except KeyboardInterrupt:
            fail(f"interrupted; {again}", INTERRUPTED)
        if not whole:
            fail(f"interrupted after the parts that were begun; {again}", INTERRUPTED)
        return watcher.figures(time.monotonic() - begin, total - before)


def _between(actors: str) -> tuple[int, int]:
    """``N`` or ``N:M``."""
    least, _, most = actors.partition(":")
    try:
        found = int(least), int(most or least)
    except ValueError:
        found = (0, 0)
    if not 1 <= found[0] <= found[1]:
        fail(f"--actors is a number from 1 on, or two as in 1:8, not {actors!r}")
    return found


@contextlib.contextmanager
def _cluster(
    model: Path | None,
    address: str | None,
    actors: tuple[int, int],
    score: bool,
    both_orders: bool,
) -> Iterator[PartExecutor]:
    """Engines on a Ray cluster, which is started and ended here if none is named."""
    if importlib.util.find_spec("ray") is None:
        fail("the engine ray needs Ray: pip install 'moltc-vllm[ray]'")
    from moltc_vllm.deploy.cluster import ClusterError, LocalCluster

    # Imports Ray only below, when a cluster of its own has set the environment.
    with contextlib.ExitStack() as stack:
        if address is None:
            try:
                address = stack.enter_context(LocalCluster()).address
            except ClusterError as error:
                fail(str(error), STOPPED)
        from moltc_vllm.deploy.ray_data import EngineSpec, RayDataExecutor  # imports Ray

        opening = EngineSpec(model.absolute() if model else None, score, both_orders)
        yield RayDataExecutor(opening, address, actors)


class _ScreenProgressDisplay:
    """Shows how far a screen is, and keeps where its time went."""

    every_s = 0.1

    def __init__(self, bars: ProgressBars, engine: Engine | None) -> None:
        self._bars, self._engine = bars, engine
        self._last: Progress | None = None
        self._said = 0.0

    def at(self, progress: Progress) -> None:
        self._last = progress
        now = time.monotonic()
        if now - self._said < self.every_s and progress.done < progress.total:
            return
        self._said = now
        spent = progress.reading_s + progress.waiting_s + progress.writing_s
        shares = [
            f"{name} {seconds / spent:.0%}"
            for name, seconds in (
                ("reading", progress.reading_s),
                ("engine", progress.waiting_s),
                ("writing", progress.writing_s),
            )
            if spent > 0
        ]
        more = ", ".join([f"{progress.failed:,} failed", *shares, *self._cached()])
        self._bars.update("", progress.done, progress.total, more)

    def _counters(self) -> dict[str, int]:
        from moltc_vllm.tasks.engine import Counting

        return self._engine.counters() if isinstance(self._engine, Counting) else {}

    def _cached(self) -> list[str]:
        """PairingMode often caches had what was needed."""
        counted = self._counters()
        if not counted.get("prompt_tokens"):
            return []
        share = counted["cached_tokens"] / counted["prompt_tokens"]
        return [f"{share:.0%} of prompts cached"]

    def figures(self, seconds: float, rows: int) -> dict[str, Any]:
        last = self._last
        figures = {"rows": rows, "seconds": seconds, "rows_per_s": rows / max(seconds, 1e-9)}
        if last is not None:
            figures |= {
                "reading_s": last.reading_s,
                "engine_s": last.waiting_s,
                "writing_s": last.writing_s,
            }
        return {**{name: round(value, 3) for name, value in figures.items()}, **self._counters()}


def _print(out: Path, summary: Summary) -> None:
    counts = ", ".join(f"{count:,} {status}" for status, count in summary.statuses.most_common())
    typer.echo(f"{out}: {summary.rows:,} rows: {counts or 'none'}")
    if summary.mean is not None:
        typer.echo(f"values from {summary.low:g} to {summary.high:g}, mean {summary.mean:g}")
    for name, count in summary.labels.most_common(_SHOWN):
        typer.echo(f"  {count:>10,}  {name}")
    for reason, count in summary.reasons.most_common(_SHOWN):
        typer.echo(f"  {count:>10,}  {reason}")
    typer.echo(f"{out / 'report.html'}")
