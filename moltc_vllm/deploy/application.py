"""The Ray Serve application: vLLM's own HTTP application in every replica."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
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
from moltc_vllm.deploy.settings import Settings

_logger = logging.getLogger("ray.serve")
_ENGINE_DIED = 70  # the exit status of such a replica, for Ray's log
_LAST_WORDS_S = 0.3


@serve.deployment(name="moltc")
@serve.ingress()  # the application is what `__serve_build_asgi_app__` returns
class MoltcServer:
    """A replica: an engine in a process of its own, and all routes of ``moltc serve``.

    Serve takes it for ready when it is made, and that is when the engine answers.

    Args:
        settings: Fields of `moltc_vllm.deploy.settings.Settings`.
    """

    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc]
        self._settings = Settings(**settings)
        self._tasks: list[asyncio.Task[None]] = []
        self._inner: Any = None
        self._leaving = False
        common = common_folder()
        # One for all replicas of this machine: `/metrics` then says the same whoever answers it.
        # It has to be there before anything imports prometheus_client.
        metrics = common / "metrics"
        metrics.mkdir(parents=True, exist_ok=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
        # Here, not above: it imports vLLM, which whoever deploys has no use for.
        from moltc_vllm.plugin.server.application import Application as Inner

        arguments = self._settings.arguments(common / "encoded")
        self._inner = await Inner.start(arguments, ray_metrics=True)

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """The routes, in this replica's event loop."""
        app = self._inner.app
        # The last one is the outermost.
        app.add_middleware(RetryableErrorMiddleware, broken=lambda: self._inner.broken)
        app.add_middleware(ClientDisconnectMiddleware)
        app.add_middleware(BodyLimitMiddleware, most=int(self._settings.max_body_mb * 1e6))
        self._begin(self._look_after())
        if self._settings.metrics_s:
            from moltc_vllm.deploy.metrics import forward

            self._begin(forward(self._settings.metrics_s))
        return app

    def _begin(self, work: Any) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def _look_after(self) -> None:
        """Leave at once when the engine has died.

        Waiting for three failed health checks would leave a replica that fails everything, quickly,
        and so looks idle to a router.
        """
        while not self._inner.broken:
            await asyncio.sleep(self._settings.watch_s)
        if self._leaving:
            return
        _logger.error("the engine has died: this replica ends")
        threading.Timer(_LAST_WORDS_S, os._exit, args=(_ENGINE_DIED,)).start()

    async def check_health(self) -> None:
        """Serve asks this now and then."""
        await self._inner.check_health()

    def __del__(self) -> None:
        self._leaving = True  # first: this end of the engine is no death
        if getattr(self, "_inner", None) is not None:
            self._inner.close()


def common_folder() -> Path:
    """What an application's replicas on one machine have in common; it goes with the cluster."""
    context = ray.get_runtime_context()
    session = Path(context.get_temp_dir()) / context.get_session_name()
    return session / "moltc" / serve.get_replica_context().app_name


def build(args: dict[str, Any]) -> Application:
    """Build the application; the ``import_path`` of every configuration.

    Args:
        args: Fields of `moltc_vllm.deploy.settings.Settings`.

    Raises:
        pydantic.ValidationError: If they are not.
    """
    return MoltcServer.bind(Settings(**args).model_dump())  # type: ignore[attr-defined]
