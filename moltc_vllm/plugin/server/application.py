"""vLLM's HTTP application with molecules, without a socket, to be mounted in another server.

Routes, errors and flags are those of ``moltc serve``.
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
class _ExitFlag:
    """Substitute for uvicorn's server, of which vLLM only sets ``should_exit``."""

    should_exit: bool = False


class Application:
    """A running engine and the HTTP application in front of it.

    Attributes:
        app: FastAPI application.
    """

    def __init__(self, engine: AsyncLLM, app: FastAPI) -> None:
        self.app = app
        self._engine = engine
        self._exit_flag = _ExitFlag()
        app.state.server = self._exit_flag  # vLLM's error handlers set it, too

    @classmethod
    async def start(cls, arguments: Sequence[str], *, ray_metrics: bool = False) -> Application:
        """Start the engine in a process of its own and build the application.

        Args:
            arguments: Checkpoint folder and any flag of ``vllm serve``.
            ray_metrics: Whether Ray's exporter gets vLLM's metrics as well.

        Raises:
            AdapterError: If an adapter is incomplete or does not fit; raised before the start.
        """
        _, parsed = parse(arguments)
        parsed.model = parsed.model_tag
        engine_args = AsyncEngineArgs.from_cli_args(parsed)
        context = UsageContext.OPENAI_API_SERVER
        engine = AsyncLLM.from_vllm_config(
            engine_args.create_engine_config(usage_context=context),
            stat_loggers=_loggers_with_ray() if ray_metrics else None,
            usage_context=context,
            enable_log_requests=engine_args.enable_log_requests,
            disable_log_stats=engine_args.disable_log_stats,
        )
        try:
            await engine.reset_mm_cache()  # profiling left its dummy molecules in it
            tasks = await engine.get_supported_tasks()
            app = build_app(parsed, tasks, engine.model_config)
            await init_app_state(engine, app.state, parsed, tasks)
        except BaseException:
            engine.shutdown()
            raise
        # vLLM builds the middleware stack eagerly; the mounting server may add more middleware.
        app.middleware_stack = None
        return cls(engine, app)

    @property
    def broken(self) -> bool:
        """Whether the engine has died, or vLLM asked its server to exit for another reason."""
        terminate_if_errored(self._exit_flag, self._engine)
        return self._exit_flag.should_exit

    async def check_health(self) -> None:
        """Check that the engine is alive.

        Raises:
            EngineDeadError: If the engine has died.
        """
        await self._engine.check_health()

    def close(self) -> None:
        """Shut the engine down."""
        self._engine.shutdown()


def _loggers_with_ray() -> list[Any]:
    from vllm.v1.metrics.loggers import PrometheusStatLogger
    from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

    # The list replaces vLLM's default logger, without which `/metrics` would lack vLLM's metrics.
    return [RayPrometheusStatLogger, PrometheusStatLogger]
