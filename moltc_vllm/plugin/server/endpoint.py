"""Routes ``POST /v1/interactions`` and ``GET /v1/tasks``, attached by an endpoint plugin."""

from __future__ import annotations

from argparse import Namespace
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.serve.utils.api_utils import with_cancellation

from moltc_vllm.models.prompt_composer import ignores_order
from moltc_vllm.plugin.server.interactions import InteractionsService
from moltc_vllm.plugin.server.protocol import InteractionsRequest, InteractionsResponse
from moltc_vllm.tasks import TASKS

router = APIRouter()


# Without `response_model`, because there is no response to validate after the client disconnects.
@router.post(
    "/v1/interactions", response_model=None, responses={200: {"model": InteractionsResponse}}
)
@with_cancellation
async def interactions(request: InteractionsRequest, raw_request: Request) -> Any:
    """Answer a task for every pair; an invalid molecule fails its own pair only."""
    service: InteractionsService = raw_request.app.state.moltc_interactions
    return JSONResponse((await service.answer(request)).model_dump(mode="json"))


@router.get("/v1/tasks")
async def tasks(raw_request: Request) -> Any:
    """List the tasks that the served model answers, and how it was loaded."""
    service: InteractionsService = raw_request.app.state.moltc_interactions
    return {
        "object": "list",
        "weights": await service.weights(),
        "standardization": service.config.standardization,
        "data": [
            {
                "id": task.name,
                "object": "task",
                "title": task.title,
                "question": task.question,
                "roles": list(task.roles),
                "caution": task.caution,
                "ignores_order": ignores_order(service.config, task),
                "unit": getattr(task.kind, "unit", None),
                "adapter": service.adapters.adapter_name(task.name),
            }
            for task in TASKS.values()
            if task.name in service.config.tasks
        ],
    }


class InteractionsPlugin:
    """Endpoint plugin (entry point ``vllm.endpoint_plugins``)."""

    name = "moltc_http"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add our routes and disable vLLM's scoring route, which bypasses the renderer."""
        app.include_router(router)

        @app.post("/generative_scoring")
        async def generative_scoring() -> JSONResponse:
            error = {
                "message": "not available for molecules: use /v1/interactions",
                "type": "NotFoundError",
                "code": HTTPStatus.NOT_FOUND,
            }
            return JSONResponse({"error": error}, HTTPStatus.NOT_FOUND)

    async def init_state(
        self, engine_client: EngineClient | None, state: State, args: Namespace
    ) -> None:
        """Create the service that the routes use."""
        if engine_client is not None:
            state.moltc_interactions = InteractionsService(
                engine_client, state.openai_serving_models
            )
