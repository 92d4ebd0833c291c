"""The server without its socket: vLLM's own HTTP application with molecules, for others to mount.

Whoever serves it, the routes, their errors and every flag are those of ``moltc serve``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from moltc_vllm.plugin.launcher import parse, prepare_environment

# vLLM reads its environment when it is imported.
prepare_environment()

from fastapi import FastAPI  # noqa: E402
from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: E402
from vllm.entrypoints.launchers.api_server.app_state import init_app_state  # noqa: E402
from vllm.entrypoints.launchers.app import build_app  # noqa: E402
from vllm.entrypoints.launchers.launcher import terminate_if_errored  # noqa: E402
from vllm.usage.usage_lib import UsageContext  # noqa: E402
from vllm.v1.engine.async_llm import AsyncLLM  # noqa: E402


@dataclasses.dataclass(slots=True)
class _Flag:
    """Stands for uvicorn's server, of which vLLM wants no more than to tell it to go."""

    should_exit: bool = False


class Application:
    """An engine that is up, and the routes in front of it.

    Attributes:
        app: The FastAPI application.
    """

    def __init__(self, engine: AsyncLLM, app: FastAPI) -> None:
        self.app = app
        self._engine = engine
        app.state.server = self._flag = _Flag()  # vLLM's error handlers look there, too

    @classmethod
    async def start(cls, arguments: Sequence[str], *, ray_metrics: bool = False) -> Application:
        """Start the engine, in a process of its own, and build the application.

        Args:
            arguments: Checkpoint folder and any flag of ``vllm serve``.
            ray_metrics: Whether vLLM's metrics go to Ray's exporter as well.

        Raises:
            AdapterError: Before anything starts, if an adapter is not whole, or does not fit.
        """
        _, parsed = parse(arguments)
        parsed.model = parsed.model_tag
        engine_args = AsyncEngineArgs.from_cli_args(parsed)
        context = UsageContext.OPENAI_API_SERVER
        engine = AsyncLLM.from_vllm_config(
            engine_args.create_engine_config(usage_context=context),
            stat_loggers=_ray_loggers() if ray_metrics else None,
            usage_context=context,
            enable_log_requests=engine_args.enable_log_requests,
            disable_log_stats=engine_args.disable_log_stats,
        )
        try:
            await engine.reset_mm_cache()  # what profiling left in it
            tasks = await engine.get_supported_tasks()
            app = build_app(parsed, tasks, engine.model_config)
            await init_app_state(engine, app.state, parsed, tasks)
        except BaseException:
            engine.shutdown()
            raise
        # It was built eagerly, and may have to take further middleware.
        app.middleware_stack = None
        return cls(engine, app)

    @property
    def broken(self) -> bool:
        """Whether the engine has died, or vLLM wants its server to end for another reason."""
        terminate_if_errored(self._flag, self._engine)
        return self._flag.should_exit

    async def check_health(self) -> None:
        """Ask the engine.

        Raises:
            EngineDeadError: If it is gone.
        """
        await self._engine.check_health()

    def close(self) -> None:
        """End the engine."""
        self._engine.shutdown()


def _ray_loggers() -> list[Any]:
    from vllm.v1.metrics.loggers import PrometheusStatLogger
    from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

    # Both: what is given here replaces the usual one, and `/metrics` would have nothing of vLLM.
    return [RayPrometheusStatLogger, PrometheusStatLogger]
