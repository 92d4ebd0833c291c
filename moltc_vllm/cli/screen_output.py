"""Output of ``moltc screen``: progress, estimate and summary."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from moltc_vllm.cli.progress import ProgressBars
    from moltc_vllm.screening.estimate import Estimate
    from moltc_vllm.screening.progress import ScreenProgress
    from moltc_vllm.screening.summary import Summary
    from moltc_vllm.tasks.engine import Engine

_PRINTED_COUNTS = 5


class ScreenProgressDisplay:
    """Progress callback that updates the bars and keeps the figures of the run.

    Args:
        bars: Progress bars to update.
        engine: Engine whose counters are shown; ``None`` if it runs elsewhere.

    Attributes:
        update_interval_s: Seconds between two updates of the bars.
    """

    update_interval_s = 0.1

    def __init__(self, bars: ProgressBars, engine: Engine | None) -> None:
        self._bars, self._engine = bars, engine
        self._progress: ScreenProgress | None = None
        self._updated_at = 0.0

    def update(self, progress: ScreenProgress) -> None:
        """See `moltc_vllm.screening.progress.ProgressCallback`."""
        self._progress = progress
        now = time.monotonic()
        is_last = progress.done >= progress.total
        if now - self._updated_at < self.update_interval_s and not is_last:
            return
        self._updated_at = now
        more = [f"{progress.failed:,} failed", *_time_shares(progress), *self._cache_share()]
        self._bars.update("", progress.done, progress.total, ", ".join(more))

    def figures(self, seconds: float, rows: int) -> dict[str, Any]:
        """Return the figures of the run for ``summary.json``.

        Args:
            seconds: Duration of the run.
            rows: Number of rows that the run had to answer.
        """
        figures = {"rows": rows, "seconds": seconds, "rows_per_s": rows / max(seconds, 1e-9)}
        if self._progress is not None:
            figures |= {
                "reading_s": self._progress.reading_s,
                "engine_s": self._progress.waiting_s,
                "writing_s": self._progress.writing_s,
            }
        rounded = {name: round(figure, 3) for name, figure in figures.items()}
        return {**rounded, **self._counters()}

    def _counters(self) -> dict[str, int]:
        from moltc_vllm.tasks.engine import CountingEngine

        return self._engine.counters() if isinstance(self._engine, CountingEngine) else {}

    def _cache_share(self) -> list[str]:
        """Return the share of cached prompt tokens as text; empty if the engine does not count."""
        counters = self._counters()
        if not counters.get("prompt_tokens"):
            return []
        share = counters["cached_tokens"] / counters["prompt_tokens"]
        return [f"{share:.0%} of prompts cached"]


def _time_shares(progress: ScreenProgress) -> list[str]:
    stages = {
        "reading": progress.reading_s,
        "engine": progress.waiting_s,
        "writing": progress.writing_s,
    }
    total = sum(stages.values())
    return [f"{name} {seconds / total:.0%}" for name, seconds in stages.items() if total > 0]


def print_estimate(estimate: Estimate, as_json: bool) -> None:
    """Print the result of ``--dry-run``."""
    if as_json:
        typer.echo(json.dumps(asdict(estimate)))
        return
    unread = ", ".join(
        f"{count:,} of the {row_label}s" for row_label, count in estimate.unread.items() if count
    )
    typer.echo(
        f"{estimate.pairs:,} pairs in {estimate.parts:,} parts; "
        f"rows that cannot be read: {unread or 'none'}"
    )
    typer.echo(
        f"{estimate.asked:,} pairs sampled: {estimate.failed:,} failed, "
        f"{estimate.pairs_per_s:,.1f} pairs/s, about {_duration(estimate.seconds)} for all pairs"
    )
    typer.echo(
        f"about {estimate.disk_bytes / 1e6:,.1f} MB on disk; {estimate.memory_bytes / 2**30:.1f} "
        "GiB of memory for any number of pairs"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def print_summary(out: Path, summary: Summary, figures: dict[str, Any], as_json: bool) -> None:
    """Print the summary of a complete screen.

    Args:
        out: Output folder.
        summary: Summary of the screen.
        figures: Figures of this run; empty if no row was missing.
        as_json: Whether to print one JSON object.
    """
    if as_json:
        typer.echo(json.dumps({**summary.as_json(), "run": figures}))
        return
    counts = ", ".join(f"{count:,} {status}" for status, count in summary.statuses.most_common())
    typer.echo(f"{out}: {summary.rows:,} rows: {counts or 'none'}")
    if summary.mean is not None:
        typer.echo(f"values from {summary.low:g} to {summary.high:g}, mean {summary.mean:g}")
    for name, count in summary.labels.most_common(_PRINTED_COUNTS):
        typer.echo(f"  {count:>10,}  {name}")
    if summary.familiarities:
        shares = (f"{count:,} {name}" for name, count in summary.familiarities.most_common())
        typer.echo(f"molecules: {', '.join(shares)}")
    for reason, count in summary.reasons.most_common(_PRINTED_COUNTS):
        typer.echo(f"  {count:>10,}  {reason}")
    typer.echo(f"{out / 'report.html'}")
