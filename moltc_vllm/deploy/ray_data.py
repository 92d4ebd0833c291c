"""Distributed screening: Ray Data distributes the parts of a screen to actors with an engine each.

The unit of work is a part of the output. An actor reads the screen's tables from its folder and
writes each part there atomically. If an actor, a machine or the driver dies, only the parts it had
not finished are computed again. The folder has to be on a file system that all machines share.
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
from typing import TYPE_CHECKING, Any, TypeVar

import ray
import ray.data

from moltc_vllm.deploy.cluster import ClusterError, join_cluster
from moltc_vllm.deploy.settings import ENGINE_DIED_STATUS
from moltc_vllm.engines.factory import EngineName, open_engine
from moltc_vllm.engines.symmetric import SymmetrizedEngine
from moltc_vllm.screening.manifest import lock_folder
from moltc_vllm.screening.progress import ProgressCallback, ScreenProgress
from moltc_vllm.screening.run import LocalExecutor
from moltc_vllm.screening.screen import Screen
from moltc_vllm.tasks.engine import EngineError
from moltc_vllm.utils.coverage import DEFAULT_COVERAGE
from moltc_vllm.utils.standardization import Standardization

if TYPE_CHECKING:
    from moltc_vllm.tasks.engine import Engine

T = TypeVar("T")

PARTS_PER_BLOCK = 4
"""Number of parts that an actor computes per call, without a pause between them."""

MAX_RETRIES = 3
"""Retries of a block whose actor died; the limit stops a pair that kills every engine."""

_STOP_POLL_S = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class EngineSpec:
    """Options with which each actor opens its engine.

    Attributes:
        model: Checkpoint folder, with the same path on every machine. Default: the shipped
            checkpoint.
        score: Whether to generate only the tokens that decide the answer.
        both_orders: Whether to ask symmetric yes/no questions in both orders and average them.
        engine: Kind of engine.
        coverage: Coverage of the prediction intervals of numeric answers.
        standardize: How molecules are standardized; default: the choice of the checkpoint.
    """

    model: Path | None = None
    score: bool = True
    both_orders: bool = False
    engine: EngineName = EngineName.vllm
    coverage: float = DEFAULT_COVERAGE
    standardize: Standardization | None = None

    def open(self) -> Engine:
        """Open the engine in this process."""
        engine = open_engine(
            self.model,
            None,
            self.engine,
            score=self.score,
            coverage=self.coverage,
            standardize=self.standardize,
        )
        return SymmetrizedEngine(engine) if self.both_orders else engine


@dataclasses.dataclass(frozen=True, slots=True)
class RayDataExecutor:
    """Computes the parts of a screen on a Ray cluster.

    Attributes:
        engine_spec: Options of the actors' engines.
        address: Address (``host:port``) of the cluster.
        actors: Minimum and maximum number of actors; Ray adds actors while parts are queued and
            the cluster has free resources.
        cpus_per_actor: Number of CPUs that Ray reserves for each actor.
        gpus_per_actor: Number of GPUs that Ray reserves for each actor. Default: 1 if the cluster
            has GPUs, otherwise 0.
    """

    engine_spec: EngineSpec
    address: str
    actors: tuple[int, int] = (1, 1)
    cpus_per_actor: float = 1.0
    gpus_per_actor: float | None = None

    def execute(
        self,
        screen: Screen,
        parts: Sequence[int],
        progress: ProgressCallback,
        should_stop: Callable[[], bool],
    ) -> Iterator[int]:
        """Compute parts on the cluster; see `moltc_vllm.screening.run.PartExecutor`.

        Raises:
            EngineError: If the cluster cannot be reached, or an actor cannot open its engine.
        """
        screen = dataclasses.replace(screen, folder=screen.folder.absolute())
        with (
            lock_folder(screen.folder),
            _joined_cluster(self.address),
            _stop_file(screen.folder) as stop_file,
        ):
            results = self._results(screen, parts, stop_file)
            results = _touch_on_stop(results, should_stop, stop_file)
            yield from _report_progress(screen, parts, results, progress)

    def _results(
        self, screen: Screen, parts: Sequence[int], stop_file: Path
    ) -> Iterator[dict[str, Any]]:
        """Run `PartActor` over the parts; yield one of its output rows per part."""
        gpus = self.gpus_per_actor
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # the screen shows its own progress bar
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        min_actors, max_actors = self.actors
        results = ray.data.from_items(
            [{"part": part} for part in parts],
            override_num_blocks=-(-len(parts) // PARTS_PER_BLOCK),
        ).map_batches(
            PartActor,
            fn_constructor_kwargs={
                "screen": screen,
                "engine_spec": self.engine_spec,
                "stop_file": stop_file,
            },
            batch_size=None,  # passes whole blocks
            compute=ray.data.ActorPoolStrategy(
                min_size=min_actors, max_size=max(min_actors, max_actors)
            ),
            num_cpus=self.cpus_per_actor,
            num_gpus=gpus,
            max_task_retries=MAX_RETRIES,  # Ray Data's default is to retry forever
        )
        try:
            yield from results.iter_rows()
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines()
            raise EngineError(f"Ray: {lines[-1] if lines else type(error).__name__}") from error


class PartActor:
    """Ray actor that computes parts of a screen until the stop file exists.

    Args:
        screen: Screen that the parts belong to.
        engine_spec: Options of the actor's engine.
        stop_file: File whose existence tells the actor not to start further parts.
    """

    def __init__(self, screen: Screen, engine_spec: EngineSpec, stop_file: Path) -> None:
        self._screen = screen
        self._executor = LocalExecutor(engine_spec.open(), lock=False)  # the driver has the lock
        self._stop_file = stop_file

    def __call__(self, block: dict[str, Any]) -> dict[str, list[Any]]:
        """Compute the parts of a block.

        Args:
            block: Column ``part`` with the numbers of the parts.

        Returns:
            Columns ``part``, ``written`` (whether the part is on disk) and ``failed`` (number of
            rows that failed). The failures of parts that overlap in time may be counted for either
            of them; the sum over the block is exact.
        """
        parts = [int(part) for part in block["part"]]
        # Ray repeats the block of an actor that died; parts it had written are kept.
        missing = self._screen.missing_parts(parts)
        written = set(parts) - set(missing)
        failed = dict.fromkeys(parts, 0)
        failures = _FailureCounter()
        try:
            failures_before = 0
            for part in self._executor.execute(
                self._screen, missing, failures, self._stop_file.exists
            ):
                written.add(part)
                failed[part] = failures.count - failures_before
                failures_before = failures.count
        except EngineError:
            # Ray replaces an actor that exits, while an exception would end the whole screen.
            logging.getLogger(__name__).exception("the engine died; this actor exits")
            os._exit(ENGINE_DIED_STATUS)
        return {
            "part": parts,
            "written": [part in written for part in parts],
            "failed": [failed[part] for part in parts],
        }


class _FailureCounter:
    """Progress callback that keeps the number of failed rows."""

    count = 0

    def update(self, progress: ScreenProgress) -> None:
        """See `ProgressCallback`."""
        self.count = progress.failed


def _report_progress(
    screen: Screen,
    parts: Sequence[int],
    results: Iterator[dict[str, Any]],
    callback: ProgressCallback,
) -> Iterator[int]:
    """Report the actors' results to the callback; yield the number of each written part."""
    rows = screen.unanswered_rows(parts)
    total = len(screen.plan)
    progress = ScreenProgress(total, total - sum(rows.values()))
    callback.update(progress)
    start_time = time.perf_counter()
    for result in results:
        if not result["written"]:
            continue
        progress.done += rows[result["part"]]
        progress.failed += result["failed"]
        progress.waiting_s = time.perf_counter() - start_time
        callback.update(progress)
        yield int(result["part"])


@contextlib.contextmanager
def _joined_cluster(address: str) -> Iterator[None]:
    """Connect to the cluster for the duration of the context, unless already connected to it."""
    if ray.is_initialized():
        joined = ray.get_runtime_context().gcs_address
        if address not in (joined, "auto"):
            raise EngineError(
                f"this process has already joined the Ray cluster {joined}, so that it cannot use "
                f"{address}; call ray.shutdown() before"
            )
        yield
        return
    try:
        join_cluster(address)
    except ClusterError as error:
        raise EngineError(str(error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def _touch_on_stop(
    items: Iterator[T], should_stop: Callable[[], bool], stop_file: Path
) -> Iterator[T]:
    """Yield the items, and create the stop file as soon as `should_stop` returns true.

    A thread polls `should_stop`, because the next item may take minutes.
    """
    finished = threading.Event()

    def poll() -> None:
        while not finished.wait(_STOP_POLL_S):
            if should_stop():
                stop_file.touch()
                return

    thread = threading.Thread(target=poll, name="moltc-stop", daemon=True)
    thread.start()
    try:
        yield from items
    finally:
        finished.set()
        thread.join()


@contextlib.contextmanager
def _stop_file(folder: Path) -> Iterator[Path]:
    """Yield the path of a file that does not exist yet, and delete the file at the end."""
    path = folder / f".stop-{uuid.uuid4().hex[:8]}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
