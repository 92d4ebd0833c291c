"""The Ray Serve application, which runs vLLM's own HTTP application in every replica."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp

from moltc_vllm.deploy.asgi import (
    BodyLimitMiddleware,
    ClientDisconnectMiddleware,
    RetryableErrorMiddleware,
)
from moltc_vllm.deploy.settings import ENGINE_DIED_STATUS, ReplicaSettings

_logger = logging.getLogger("ray.serve")
_LOG_FLUSH_S = 0.3


@serve.deployment(name="moltc")
@serve.ingress()  # `__serve_build_asgi_app__` returns the application
class MoltcServer:
    """Replica with an engine in a separate process and all routes of ``moltc serve``.

    Serve counts a replica as ready when the constructor returns, so the constructor waits until the
    engine answers.

    Args:
        settings: Fields of `moltc_vllm.deploy.settings.ReplicaSettings`.
    """

    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc]
        self._settings = ReplicaSettings(**settings)
        self._tasks: list[asyncio.Task[None]] = []
        self._server: Any = None
        self._closing = False
        folder = machine_folder()
        # All replicas of a machine share this folder, so that `/metrics` does not depend on which
        # of them answers. prometheus_client reads the variable when it is imported.
        metrics = folder / "metrics"
        metrics.mkdir(parents=True, exist_ok=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
        # Imports vLLM, which the process that builds the application does not need.
        from moltc_vllm.plugin.server.application import Application as Server

        arguments = self._settings.serve_arguments(folder / "encoded")
        self._server = await Server.start(arguments, ray_metrics=True)

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application with its middlewares, in the replica's event loop."""
        app = self._server.app
        # Starlette runs the middleware that is added last first.
        app.add_middleware(RetryableErrorMiddleware, engine_died=lambda: self._server.broken)
        app.add_middleware(ClientDisconnectMiddleware)
        app.add_middleware(BodyLimitMiddleware, max_bytes=int(self._settings.max_body_mb * 1e6))
        self._start_task(self._exit_when_engine_died())
        if self._settings.metrics_s:
            from moltc_vllm.deploy.metrics_export import export_counters

            self._start_task(export_counters(self._settings.metrics_s))
        return app

    def _start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(coroutine))

    async def _exit_when_engine_died(self) -> None:
        """Exit as soon as the engine has died.

        Serve replaces a replica only after three failed health checks. Until then the replica would
        fail every request quickly, look idle to the router and attract further requests.
        """
        while not self._server.broken:
            await asyncio.sleep(self._settings.watch_s)
        if self._closing:
            return
        _logger.error("the engine died; this replica exits and will be replaced")
        threading.Timer(_LOG_FLUSH_S, os._exit, args=(ENGINE_DIED_STATUS,)).start()

    async def check_health(self) -> None:
        """Check the engine; Serve calls this periodically."""
        await self._server.check_health()

    def __del__(self) -> None:
        self._closing = True  # set first: closing the engine must not look like its death
        if getattr(self, "_server", None) is not None:
            self._server.close()


def machine_folder() -> Path:
    """Return the folder that the application's replicas on this machine share.

    The folder belongs to the Ray session and is deleted with it.
    """
    context = ray.get_runtime_context()
    session = Path(context.get_temp_dir()) / context.get_session_name()
    return session / "moltc" / serve.get_replica_context().app_name


def build(args: dict[str, Any]) -> Application:
    """Build the Ray Serve application; the ``import_path`` of every configuration.

    Args:
        args: Fields of `moltc_vllm.deploy.settings.ReplicaSettings`.

    Raises:
        pydantic.ValidationError: If a field is unknown or has a wrong value.
    """
    return MoltcServer.bind(ReplicaSettings(**args).model_dump())  # type: ignore[attr-defined]
