"""What a screen will take, from a small part of it that is really answered."""

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
from moltc_vllm.screening.run import Progress, Screen, run
from moltc_vllm.tasks.engine import Engine

_RUNS, _WIDTH = 4, 256


@dataclass(frozen=True, slots=True)
class Estimate:
    """What was found, and what follows from it.

    Attributes:
        pairs: Of the screen.
        parts: Of its output.
        unread: Rows of each input that cannot be read.
        asked: Pairs that were answered for this.
        failed: Of those, without an answer.
        pairs_per_s: PairingMode fast, once the engine was warm.
        seconds: For all pairs at that rate.
        disk_bytes: Of all parts.
        memory_bytes: Of this process and the engine's now; more pairs take no more.
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
    """Answer some runs of neighbouring pairs, evenly spread over the screen.

    Args:
        screen: What is planned.
        engine: Who answers.
        folder: An empty one, for what is answered.
    """
    plan = _Runs(screen.plan)
    some = replace(screen, folder=folder, plan=plan, part_rows=max(1, len(plan)))
    clock = _Clock()
    if len(plan):
        run(some, engine, clock)
    rate = clock.rate()
    size = part_path(folder, 0).stat().st_size / len(plan) if len(plan) else 0.0
    sides = {screen.inputs.first.name: screen.inputs.first.store}
    if screen.inputs.second.store is not screen.inputs.first.store:
        sides[screen.inputs.second.name] = screen.inputs.second.store
    return Estimate(
        pairs=len(screen.plan),
        parts=screen.parts,
        unread={name: store.unread for name, store in sides.items()},
        asked=len(plan),
        failed=clock.failed,
        pairs_per_s=rate,
        seconds=len(screen.plan) / rate if rate else 0.0,
        disk_bytes=int(size * len(screen.plan)),
        memory_bytes=_memory(),
    )


class _Runs:
    """A few runs of neighbouring places of another plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        total = len(plan)
        starts = range(0, total, max(_WIDTH, -(-total // _RUNS)))
        self._pieces = [(start, min(start + _WIDTH, total)) for start in starts]

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self._pieces)

    def slice(self, start: int, stop: int) -> Iterator[PairIndex]:
        """See `Plan`."""
        pieces = itertools.chain.from_iterable(self._plan.slice(*piece) for piece in self._pieces)
        return itertools.islice(pieces, start, stop)


class _Clock:
    """Pairs a second after the first quarter, in which kernels are compiled and caches filled."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._warm: tuple[int, float] | None = None
        self._last = (0, self._begin)
        self.failed = 0

    def at(self, progress: Progress) -> None:
        now = time.perf_counter()
        if self._warm is None and 4 * progress.done >= progress.total:
            self._warm = progress.done, now
        self._last = progress.done, now
        self.failed = progress.failed

    def rate(self) -> float:
        done, at = self._warm or (0, self._begin)
        if self._last[0] <= done:
            done, at = 0, self._begin
        return (self._last[0] - done) / max(self._last[1] - at, 1e-9)


def _memory() -> int:
    """Resident bytes of this process and its children; what they share counts for each."""
    process = psutil.Process()
    total = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            total += one.memory_info().rss
    return total
