"""Estimate of a screen's time, disk and memory, measured on a sample of its pairs."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from moltc_vllm.screening.parts import part_path
from moltc_vllm.screening.plan import PairIndex, Plan
from moltc_vllm.screening.progress import ScreenProgress
from moltc_vllm.screening.run import LocalExecutor, run_screen
from moltc_vllm.screening.screen import Screen
from moltc_vllm.tasks.engine import Engine

_RUN_COUNT, _RUN_LENGTH = 4, 256


@dataclass(frozen=True, slots=True)
class Estimate:
    """Measurements on a sample, and their extrapolation to the whole screen.

    The field names are those of ``moltc screen --dry-run --json``.

    Attributes:
        pairs: Number of pairs of the screen.
        parts: Number of parts of its output.
        unread: Number of rows that cannot be read, by input.
        asked: Number of pairs in the sample.
        failed: Number of pairs in the sample that failed.
        pairs_per_s: Rate after the engine's warm-up.
        seconds: Time for all pairs at that rate.
        disk_bytes: Size of all parts.
        memory_bytes: Current memory of this process and its engine, which does not grow with the
            number of pairs.
    """

    pairs: int
    parts: int
    unread: dict[str, int]
    asked: int
    failed: int
    pairs_per_s: float
    seconds: float
    disk_bytes: int
    memory_bytes: int


def estimate(screen: Screen, engine: Engine, folder: Path) -> Estimate:
    """Estimate a screen's time, disk and memory by answering a sample of its pairs.

    The sample consists of a few runs of neighboring pairs, evenly spread over the plan.

    Args:
        screen: Screen to estimate.
        engine: Engine that answers the pairs.
        folder: Empty folder for the answers of the sample.
    """
    plan = _SampledPlan(screen.plan)
    sample = replace(screen, folder=folder, plan=plan, part_rows=max(1, len(plan)))
    meter = _RateMeter()
    if len(plan):
        run_screen(sample, LocalExecutor(engine), meter)
    rate = meter.pairs_per_s()
    bytes_per_pair = part_path(folder, 0).stat().st_size / len(plan) if len(plan) else 0.0
    return Estimate(
        pairs=len(screen.plan),
        parts=screen.part_count,
        unread=_unreadable_rows(screen),
        asked=len(plan),
        failed=meter.failed,
        pairs_per_s=rate,
        seconds=len(screen.plan) / rate if rate else 0.0,
        disk_bytes=int(bytes_per_pair * len(screen.plan)),
        memory_bytes=_resident_bytes(),
    )


def _unreadable_rows(screen: Screen) -> dict[str, int]:
    first, second = screen.inputs.first, screen.inputs.second
    stores = {first.row_label: first.store}
    if second.store is not first.store:
        stores[second.row_label] = second.store
    return {row_label: store.unreadable_rows for row_label, store in stores.items()}


class _SampledPlan:
    """A few runs of neighboring positions of another plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        total = len(plan)
        starts = range(0, total, max(_RUN_LENGTH, -(-total // _RUN_COUNT)))
        self._runs = [(start, min(start + _RUN_LENGTH, total)) for start in starts]

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self._runs)

    def slice(self, start: int, stop: int) -> Iterator[PairIndex]:
        """See `Plan`."""
        pairs = itertools.chain.from_iterable(self._plan.slice(*run) for run in self._runs)
        return itertools.islice(pairs, start, stop)


class _RateMeter:
    """Measures pairs per second after the first quarter, which compiles kernels and fills caches.

    Attributes:
        failed: Number of rows that failed.
    """

    def __init__(self) -> None:
        self._started_at = time.perf_counter()
        self._warmed_up: tuple[int, float] | None = None
        self._last = (0, self._started_at)
        self.failed = 0

    def update(self, progress: ScreenProgress) -> None:
        """See `moltc_vllm.screening.progress.ProgressCallback`."""
        now = time.perf_counter()
        if self._warmed_up is None and 4 * progress.done >= progress.total:
            self._warmed_up = progress.done, now
        self._last = progress.done, now
        self.failed = progress.failed

    def pairs_per_s(self) -> float:
        """Return the measured rate."""
        start_done, start_s = self._warmed_up or (0, self._started_at)
        done, end_s = self._last
        if done <= start_done:
            start_done, start_s = 0, self._started_at
        return (done - start_done) / max(end_s - start_s, 1e-9)


def _resident_bytes() -> int:
    """Return the resident memory of this process and its children; shared pages count for each."""
    process = psutil.Process()
    total = 0
    for member in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # a child may have exited meanwhile
            total += member.memory_info().rss
    return total
