"""Engines of ``moltc screen``: one in this process, a server, or a Ray cluster."""

from __future__ import annotations

import contextlib
import enum
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moltc_vllm.cli.engines import EngineName, open_engine
from moltc_vllm.cli.messages import fail
from moltc_vllm.utils.coverage import DEFAULT_COVERAGE
from moltc_vllm.utils.standardization import Standardization

if TYPE_CHECKING:
    from moltc_vllm.screening.run import PartExecutor
    from moltc_vllm.tasks.engine import Engine

EXIT_ENGINE_FAILED = 1
"""Exit status if an engine or a cluster fails; for wrong options and files it is 2."""


class ScreenEngine(enum.StrEnum):
    """Engines that a screen can use: those of `EngineName`, and a Ray cluster."""

    vllm = "vllm"
    torch = "torch"
    http = "http"
    ray = "ray"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of ``moltc screen`` that select the engine.

    Attributes:
        name: Kind of engine.
        model: Checkpoint folder; default: the shipped one.
        endpoint: URL of a running server.
        address: Address of a Ray cluster; default: a cluster started on this machine.
        actors: Minimum and maximum number of engines on the cluster.
        score: Whether only the tokens that distinguish answers are generated.
        both_orders: Whether to average symmetric tasks over both orders of the molecules.
        coverage: Coverage of the prediction intervals of numeric answers.
        standardize: How molecules are standardized; default: the choice of the checkpoint.
    """

    name: ScreenEngine
    model: Path | None
    endpoint: str | None
    address: str | None
    actors: tuple[int, int]
    score: bool
    both_orders: bool
    coverage: float = DEFAULT_COVERAGE
    standardize: Standardization | None = None

    def open_engine(self) -> Engine:
        """Open an engine in this process; for a cluster, an engine like those of its actors."""
        from moltc_vllm.engines.symmetric import SymmetrizedEngine
        from moltc_vllm.utils.signals import block_sigint_in_children

        is_cluster = self.name is ScreenEngine.ray
        name = EngineName.vllm if is_cluster else EngineName(self.name.value)
        with block_sigint_in_children():
            engine = open_engine(
                self.model,
                self.endpoint,
                name,
                score=self.score,
                coverage=self.coverage,
                standardize=self.standardize,
            )
        return SymmetrizedEngine(engine) if self.both_orders else engine

    @contextlib.contextmanager
    def open_executor(self) -> Iterator[tuple[PartExecutor, Engine | None]]:
        """Open the executor of a screen for the duration of the block.

        Yields:
            The executor, and its engine if that runs in this process.
        """
        from moltc_vllm.screening.run import LocalExecutor

        if self.name is ScreenEngine.ray:
            with self._open_cluster() as executor:
                yield executor, None
        else:
            engine = self.open_engine()
            yield LocalExecutor(engine), engine

    @contextlib.contextmanager
    def _open_cluster(self) -> Iterator[PartExecutor]:
        if importlib.util.find_spec("ray") is None:
            fail("--engine ray needs Ray: pip install 'moltc-vllm[ray]'")
        from moltc_vllm.deploy.cluster import ClusterError, LocalCluster

        with contextlib.ExitStack() as stack:
            address = self.address
            if address is None:
                try:
                    address = stack.enter_context(LocalCluster()).address
                except ClusterError as error:
                    fail(str(error), EXIT_ENGINE_FAILED)
            # This imports Ray, which reads the environment that `LocalCluster` sets.
            from moltc_vllm.deploy.ray_data import EngineSpec, RayDataExecutor

            folder = self.model.absolute() if self.model else None
            spec = EngineSpec(
                folder,
                self.score,
                self.both_orders,
                coverage=self.coverage,
                standardize=self.standardize,
            )
            yield RayDataExecutor(spec, address, self.actors)


def parse_actors(text: str) -> tuple[int, int]:
    """Parse ``N`` or ``MIN:MAX``; exit if the text is neither."""
    minimum, _, maximum = text.partition(":")
    try:
        actors = int(minimum), int(maximum or minimum)
    except ValueError:
        actors = (0, 0)
    if not 1 <= actors[0] <= actors[1]:
        fail(f"--actors must be a number of at least 1, or a range such as 1:8, not {text!r}")
    return actors
