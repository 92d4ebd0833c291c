"""A screen on a cluster: Ray Data hands parts to actors, each with an engine of its own.

The unit of work is a part of the output. An actor reads the screen's tables, which lie in its
folder, and writes the part there, whole or not at all: what an actor, a machine or the driver had
not finished is made anew, and nothing else. The folder is on a file system that all machines see.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.data

from moltc_vllm.deploy.cluster import ClusterError
from moltc_vllm.deploy.joining import join
from moltc_vllm.engines.factory import EngineName, open_engine
from moltc_vllm.engines.symmetric import SymmetrizedEngine
from moltc_vllm.screening.manifest import locked
from moltc_vllm.screening.run import Progress, ProgressCallback, Screen, compute_parts
from moltc_vllm.tasks.engine import EngineError

if TYPE_CHECKING:
    from moltc_vllm.tasks.engine import Engine

TOGETHER = 4
"""Parts that an actor makes without a pause between them."""

RETRIES = 3
"""Of a block whose actor died: a pair that kills engines must not be asked for ever."""

_ENGINE_DIED = 70
_LOOK_S = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class EngineSpec:
    """How each actor opens its engine.

    Attributes:
        model: Checkpoint folder, the same on every machine; default: the shipped one.
        score: Ask only what there is to decide.
        both_orders: Ask symmetric yes/no questions in both orders.
        engine: Which one.
    """

    model: Path | None = None
    score: bool = True
    both_orders: bool = False
    engine: EngineName = EngineName.vllm

    def open(self) -> Engine:
        """Open it."""
        made = open_engine(self.model, None, self.engine, score=self.score)
        return SymmetrizedEngine(made) if self.both_orders else made


@dataclasses.dataclass(frozen=True, slots=True)
class RayDataExecutor:
    """Makes a screen's parts on a Ray cluster.

    Attributes:
        opening: Of the engines.
        address: Of the cluster.
        actors: At least and at most so many; Ray adds some while there is work and room.
        cpus: Of an actor.
        gpus: Of an actor; default: one, if the cluster has any.
    """

    opening: EngineSpec
    address: str
    actors: tuple[int, int] = (1, 1)
    cpus: float = 1.0
    gpus: float | None = None

    def make(
        self,
        screen: Screen,
        progress_callback: ProgressCallback,
        stop: Callable[[], bool],
        missing: Sequence[int],
    ) -> Iterator[int]:
        """See `moltc_vllm.screening.run.PartExecutor`.

        Raises:
            EngineError: If the cluster cannot be reached, or an actor cannot open its engine.
        """
        screen = dataclasses.replace(screen, folder=screen.folder.absolute())
        with locked(screen.folder), _joined(self.address), _flag(screen.folder) as flag:
            yield from self._made(screen, progress_callback, stop, missing, flag)

    def _made(
        self,
        screen: Screen,
        progress_callback: ProgressCallback,
        stop: Callable[[], bool],
        missing: Sequence[int],
        flag: Path,
    ) -> Iterator[int]:
        rows = screen.open_rows(missing)
        progress = Progress(len(screen.plan), len(screen.plan) - sum(rows.values()))
        progress_callback.at(progress)
        begin = time.perf_counter()
        results = self._results(screen, missing, flag)
        for result in _flagging(results, stop, flag):
            if not result["made"]:
                continue
            progress.done += rows[result["part"]]
            progress.failed += result["failed"]
            progress.waiting_s = time.perf_counter() - begin
            progress_callback.at(progress)
            yield int(result["part"])

    def _results(
        self, screen: Screen, missing: Sequence[int], flag: Path
    ) -> Iterator[dict[str, Any]]:
        gpus = self.gpus
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # there is one already
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        blocks = -(-len(missing) // TOGETHER)
        least, most = self.actors
        parts = ray.data.from_items(
            [{"part": number} for number in missing], override_num_blocks=blocks
        ).map_batches(
            PartActor,
            fn_constructor_kwargs={"screen": screen, "opening": self.opening, "flag": flag},
            batch_size=None,  # a block
            compute=ray.data.ActorPoolStrategy(min_size=least, max_size=max(least, most)),
            num_cpus=self.cpus,
            num_gpus=gpus,
            max_task_retries=RETRIES,  # Ray Data's own is: for ever
        )
        try:
            yield from parts.iter_rows()
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()
            raise EngineError(f"Ray: {reason[-1] if reason else type(error).__name__}") from error


class PartActor:
    """An actor: makes parts until it is told to stop.

    Args:
        screen: Of which.
        opening: Of its engine.
        flag: Once this file is there, nothing new is begun.
    """

    def __init__(self, screen: Screen, opening: EngineSpec, flag: Path) -> None:
        self._screen = screen
        self._engine = opening.open()
        self._flag = flag

    def __call__(self, block: dict[str, Any]) -> dict[str, list[Any]]:
        """Make the parts of a block; which ones were made, and how many rows have no answer."""
        screen = self._screen
        wanted = [int(number) for number in block["part"]]
        # The block of an actor that died comes again: what it had written stays.
        open_parts = screen.missing(wanted)
        progress_callback = _Failures()
        made = set(wanted) - set(open_parts)
        failed = dict.fromkeys(wanted, 0)
        try:
            before = 0
            for number in compute_parts(
                screen, self._engine, progress_callback, self._flag.exists, open_parts
            ):
                made.add(number)
                # Parts overlap; their sum is right.
                failed[number] = progress_callback.count - before
                before = progress_callback.count
        except EngineError:
            # Ray starts a new actor in place of one that died; one that fails would end the screen.
            logging.getLogger(__name__).exception("the engine died: this actor ends")
            os._exit(_ENGINE_DIED)
        return {
            "part": wanted,
            "made": [number in made for number in wanted],
            "failed": [failed[number] for number in wanted],
        }


class _Failures:
    """Counts rows without an answer."""

    count = 0

    def at(self, progress: Progress) -> None:
        """See `ProgressCallback`."""
        self.count = progress.failed


@contextlib.contextmanager
def _joined(address: str) -> Iterator[None]:
    """Be a driver of the cluster meanwhile."""
    if ray.is_initialized():
        joined = ray.get_runtime_context().gcs_address
        if address not in (joined, "auto"):
            raise EngineError(f"this process has joined the cluster {joined}, not {address}")
        yield
        return
    try:
        join(address)
    except ClusterError as error:
        raise EngineError(str(error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def _flagging(
    results: Iterator[dict[str, Any]], stop: Callable[[], bool], flag: Path
) -> Iterator[dict[str, Any]]:
    """The results; as soon as it is to stop, the flag is there: what is begun is finished."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_S):
            if stop():
                flag.touch()
                return

    looking = threading.Thread(target=look, name="moltc-stop", daemon=True)
    looking.start()
    try:
        yield from results
    finally:
        over.set()
        looking.join()


@contextlib.contextmanager
def _flag(folder: Path) -> Iterator[Path]:
    """Name of a file that is not there, and is not there afterwards."""
    path = folder / f".stop-{uuid.uuid4().hex[:8]}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
