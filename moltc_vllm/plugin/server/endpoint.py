"""``POST /v1/interactions``: many pairs in, one typed answer per pair out (an endpoint plugin)."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StrictStr
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.serve.utils.api_utils import with_cancellation
from vllm.exceptions import VLLMClientError, VLLMNotFoundError, VLLMValidationError
from vllm.outputs import RequestOutput
from vllm.sampling_params import SamplingParams
from vllm.utils import random_uuid
from vllm.v1.engine.exceptions import EngineGenerateError

from moltc_vllm.models.checkpoint import CheckpointError, weights_checksum
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.plugin.engine.request_builder import (
    PairRequestBuilder,
    Settings,
    check_beams,
    failure,
)
from moltc_vllm.plugin.metrics import PAIRS_ANSWERED
from moltc_vllm.plugin.server.task_adapters import TaskAdapters
from moltc_vllm.tasks import TASKS, Answer, PromptError, Task, UnknownTaskError, get_task

MAX_PAIRS = 10_000
"""Pairs in one request; more belong into several requests or into a screen."""

PAIRS_IN_FLIGHT = 512
"""Pairs of one request that the engine holds at once, so that others get their turn."""


class MoleculeObject(BaseModel):
    """A molecule as an object."""

    model_config = ConfigDict(extra="forbid")

    smiles: StrictStr | None = None
    molblock: StrictStr | None = None


Molecule = Annotated[StrictStr | MoleculeObject, Field(union_mode="left_to_right")]


class InteractionsRequest(BaseModel):
    """Body of ``POST /v1/interactions``."""

    model_config = ConfigDict(extra="forbid")

    model: StrictStr | None = None
    task: StrictStr
    pairs: Annotated[list[list[Molecule]], Field(min_length=1, max_length=MAX_PAIRS)]
    question: StrictStr | None = None
    constrained: bool | None = None  # default: as the checkpoint's prompt style has it
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    beams: Annotated[int, Field(ge=1)] = 1
    score: bool = False  # ask only what there is to decide: labels, intervals and means


class Usage(BaseModel):
    """Tokens of all pairs together."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class InteractionsResponse(BaseModel):
    """One answer per pair, in the order of the request."""

    id: str
    object: Literal["list"] = "list"
    model: str
    task: str
    data: list[Answer]
    usage: Usage


router = APIRouter()


# No `response_model`: there is no response to validate when the client has left.
@router.post(
    "/v1/interactions", response_model=None, responses={200: {"model": InteractionsResponse}}
)
@with_cancellation
async def interactions(request: InteractionsRequest, raw_request: Request) -> Any:
    """Answer a task for every pair; a bad molecule is its pair's error and nobody else's."""
    service: InteractionsService = raw_request.app.state.moltc_interactions
    return JSONResponse((await service.answer(request)).model_dump(mode="json"))


@router.get("/v1/tasks")
async def tasks(raw_request: Request) -> Any:
    """The tasks this server answers, and a checksum of the weights that it does it with."""
    service: InteractionsService = raw_request.app.state.moltc_interactions
    return {
        "object": "list",
        "weights": await service.weights(),
        "data": [
            {
                "id": task.name,
                "object": "task",
                "title": task.title,
                "question": task.question,
                "roles": list(task.roles),
                "unit": getattr(task.kind, "unit", None),
                "adapter": service.adapters.name_of(task.name),
            }
            for task in TASKS.values()
            if task.name in service.config.tasks
        ],
    }


class InteractionsService:
    """Asks the engine about pairs."""

    def __init__(self, engine: EngineClient, models: Any) -> None:
        self.engine = engine
        self.models = models  # vLLM's table of served names and adapters
        self.config: MoltcConfig = engine.model_config.hf_config
        self.adapters = TaskAdapters(models, self.config)
        self._weights: asyncio.Task[str | None] | None = None

    async def weights(self) -> str | None:
        """See `moltc_vllm.models.checkpoint.weights_checksum`; ``None``, if it has no folder here.

        Computed when somebody asks for the first time: a card has it, other weights are read once.
        """
        if self._weights is None:
            folder = Path(self.engine.model_config.model)
            checksum = asyncio.to_thread(_checksum, folder)
            self._weights = asyncio.get_running_loop().create_task(checksum)
        return await asyncio.shield(self._weights)

    async def answer(self, request: InteractionsRequest) -> InteractionsResponse:
        """Answer all pairs of a request.

        Raises:
            VLLMValidationError: If the task is unknown, or does not fit the request or the model.
            VLLMNotFoundError: If the model is unknown.
        """
        task = self._task(request)
        chosen, _ = self.adapters.choose(request.model, task.name)
        model, adapter = self._model(chosen)
        request_builder = self._request_builder(request)
        name = f"interactions-{random_uuid()}"
        turns = asyncio.Semaphore(PAIRS_IN_FLIGHT)
        usage = Usage()

        async def one(number: int, pair: list[Molecule]) -> Answer:
            async with turns:
                try:
                    answer = await self._ask(
                        request_builder,
                        task,
                        pair,
                        request.question,
                        f"{name}-{number}",
                        adapter,
                        usage,
                    )
                except (VLLMClientError, EngineGenerateError) as error:
                    answer = failure(task, error)
            PAIRS_ANSWERED.labels(task=task.name, status=answer.status).inc()
            return answer

        try:
            async with asyncio.TaskGroup() as group:
                jobs = [
                    group.create_task(one(number, pair))
                    for number, pair in enumerate(request.pairs)
                ]
        except BaseExceptionGroup as failures:
            # vLLM's handlers know a dead engine, but not in a group.
            raise failures.exceptions[0] from failures
        usage.total_tokens = usage.prompt_tokens + usage.completion_tokens
        return InteractionsResponse(
            id=name,
            model=model,
            task=task.name,
            data=[job.result() for job in jobs],
            usage=usage,
        )

    async def _ask(
        self,
        request_builder: PairRequestBuilder,
        task: Task,
        pair: list[Molecule],
        question: str | None,
        request_id: str,
        adapter: Any,
        usage: Usage,
    ) -> Answer:
        molecules = [
            one.model_dump(exclude_none=True) if isinstance(one, MoleculeObject) else one
            for one in pair
        ]
        prompt = request_builder.prompt(task, molecules, question)
        renderer = self.engine.renderer
        (inputs,) = await renderer.render_cmpl_async([prompt], renderer.default_cmpl_tok_params)
        usage.prompt_tokens += len(inputs["prompt_token_ids"])
        strategy = request_builder.strategy(task, inputs)
        found = None
        step = 0
        while found is None:
            outputs = await asyncio.gather(
                *(
                    self._output(one, params, f"{request_id}-{step}-{place}", adapter)
                    for place, (one, params) in enumerate(strategy.requests())
                )
            )
            found = strategy.step(outputs)
            step += 1
        usage.completion_tokens += len(found.token_ids)
        return request_builder.answer(task, found)

    async def _output(
        self, inputs: Any, params: SamplingParams, request_id: str, adapter: Any
    ) -> RequestOutput:
        last = None
        async for output in self.engine.generate(inputs, params, request_id, lora_request=adapter):
            last = output
        if last is None:
            raise EngineGenerateError("the engine gave no output")
        return last

    def _request_builder(self, request: InteractionsRequest) -> PairRequestBuilder:
        check_beams(request.beams, self.engine.model_config.max_logprobs)
        settings = Settings(
            constrained=request.constrained,
            max_tokens=request.max_tokens,
            beams=request.beams,
            score=request.score,
        )
        try:
            return PairRequestBuilder(
                self.config,
                self.engine.renderer.get_tokenizer(),
                settings,
                self.engine.model_config.max_logprobs,
                self.engine.model_config.logprobs_mode,
            )
        except ValueError as error:
            wrong = "beams" if request.beams > 1 else "score"
            raise VLLMValidationError(str(error), parameter=wrong) from error

    def _task(self, request: InteractionsRequest) -> Task:
        try:
            task = get_task(request.task)
        except UnknownTaskError as error:
            raise VLLMValidationError(str(error), parameter="task") from error
        if task.name not in self.config.tasks:
            raise VLLMValidationError(
                f"this checkpoint does not answer {task.name!r}; it has "
                f"{', '.join(self.config.tasks)}",
                parameter="task",
            )
        for number, pair in enumerate(request.pairs):
            try:
                task.check(len(pair), request.question)
            except PromptError as error:
                raise VLLMValidationError(str(error), parameter=f"pairs[{number}]") from error
        return task

    def _model(self, name: str | None) -> tuple[str, Any]:
        """Served name and adapter of a model."""
        if not name or self.models.is_base_model(name):
            return name or self.models.base_model_paths[0].name, None
        adapter = self.models.lora_requests.get(name)
        if adapter is None:
            raise VLLMNotFoundError(f"The model `{name}` does not exist.")
        return name, adapter


def _checksum(folder: Path) -> str | None:
    try:
        return weights_checksum(folder) if folder.is_dir() else None
    except (CheckpointError, OSError):
        return None


class InteractionsPlugin:
    """Entry point ``vllm.endpoint_plugins``."""

    name = "moltc_http"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add our routes, and close the one that would pass the renderer by."""
        app.include_router(router)

        @app.post("/generative_scoring")
        async def closed() -> JSONResponse:
            error = {
                "message": "not available for molecules: use /v1/interactions",
                "type": "NotFoundError",
                "code": HTTPStatus.NOT_FOUND,
            }
            return JSONResponse({"error": error}, HTTPStatus.NOT_FOUND)

    async def init_state(
        self, engine_client: EngineClient | None, state: State, args: Namespace
    ) -> None:
        """Keep what the routes need."""
        if engine_client is not None:
            state.moltc_interactions = InteractionsService(
                engine_client, state.openai_serving_models
            )
