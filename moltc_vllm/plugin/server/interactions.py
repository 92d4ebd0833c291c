"""Answers of ``POST /v1/interactions``, computed by the server's engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vllm.engine.protocol import EngineClient
from vllm.exceptions import VLLMClientError, VLLMNotFoundError, VLLMValidationError
from vllm.outputs import RequestOutput
from vllm.sampling_params import SamplingParams
from vllm.utils import random_uuid
from vllm.v1.engine.exceptions import EngineGenerateError

from moltc_vllm.models.answer_calibrator import AnswerCalibrator
from moltc_vllm.models.checkpoint import CheckpointError, weights_checksum
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.plugin.engine.decoding_strategies import DecodingStrategy, GenerationResult
from moltc_vllm.plugin.engine.request_builder import (
    GenerationSettings,
    PairRequestBuilder,
    check_beam_width,
    failed_answer,
)
from moltc_vllm.plugin.metrics import PAIRS_ANSWERED
from moltc_vllm.plugin.modality.molecules import MoleculeSpec
from moltc_vllm.plugin.server.protocol import (
    InteractionsRequest,
    InteractionsResponse,
    Molecule,
    MoleculeObject,
    Usage,
)
from moltc_vllm.plugin.server.task_adapters import TaskAdapters
from moltc_vllm.tasks import Answer, PromptError, Task, UnknownTaskError, get_task

PAIRS_IN_FLIGHT = 512
"""Maximum number of pairs of one request in the engine; leaves capacity for other requests."""


@dataclass(slots=True)
class _Job:
    """Common state of all pairs of one HTTP request.

    Attributes:
        id: Id of the response and prefix of the engine's request ids.
        task: Task to answer.
        question: Question of a task that takes one.
        adapter: Adapter that answers; ``None`` is the base model.
        request_builder: Builder with the request's generation settings.
        usage: Token counts, summed over the pairs.
        semaphore: Limit on the number of pairs in the engine.
    """

    id: str
    task: Task
    question: str | None
    adapter: Any
    request_builder: PairRequestBuilder
    usage: Usage = field(default_factory=Usage)
    semaphore: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PAIRS_IN_FLIGHT))


class InteractionsService:
    """Service that answers pairs with the server's engine.

    Args:
        engine: Client of the engine.
        models: Table of served model names and adapters of vLLM.
    """

    def __init__(self, engine: EngineClient, models: Any) -> None:
        self.engine = engine
        self.models = models
        self.config: MoltcConfig = engine.model_config.hf_config
        self.adapters = TaskAdapters(models, self.config)
        self.calibrator = AnswerCalibrator.load(Path(engine.model_config.model), self.config)
        self._weights: asyncio.Task[str | None] | None = None

    async def weights(self) -> str | None:
        """Return a checksum of the weights, or ``None`` if the checkpoint is not a local folder.

        The first call computes it: from the checkpoint's card, or else by reading the weights, see
        `moltc_vllm.models.checkpoint.weights_checksum`.
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
        task = self._validated_task(request)
        model_name, _ = self.adapters.resolve(request.model, task.name)
        model, adapter = self._find_model(model_name)
        job = _Job(
            id=f"interactions-{random_uuid()}",
            task=task,
            question=request.question,
            adapter=adapter,
            request_builder=self._create_request_builder(request),
        )
        answers = await self._answer_pairs(job, request.pairs)
        job.usage.total_tokens = job.usage.prompt_tokens + job.usage.completion_tokens
        return InteractionsResponse(
            id=job.id, model=model, task=task.name, data=answers, usage=job.usage
        )

    async def _answer_pairs(self, job: _Job, pairs: Sequence[list[Molecule]]) -> list[Answer]:
        """Answer pairs concurrently; an error of one pair cancels the others."""
        try:
            async with asyncio.TaskGroup() as group:
                futures = [
                    group.create_task(self._answer_pair(job, index, pair))
                    for index, pair in enumerate(pairs)
                ]
        except BaseExceptionGroup as failures:
            # vLLM's exception handlers recognize a dead engine, but not inside a group.
            raise failures.exceptions[0] from failures
        return [future.result() for future in futures]

    async def _answer_pair(self, job: _Job, index: int, pair: list[Molecule]) -> Answer:
        """Answer one pair; an error of this pair alone becomes its answer."""
        async with job.semaphore:
            try:
                result = await self._generate(job, index, pair)
                smiles = self._smiles(pair)
                answer = job.request_builder.parse_result(job.task, result, smiles)
            except (VLLMClientError, EngineGenerateError) as error:
                answer = failed_answer(job.task, error)
        PAIRS_ANSWERED.labels(task=job.task.name, status=answer.status).inc()
        return answer

    async def _generate(self, job: _Job, index: int, pair: list[Molecule]) -> GenerationResult:
        """Render a pair and run its decoding strategy to the end."""
        molecules = list(map(_as_value, pair))
        prompt = job.request_builder.build_prompt(job.task, molecules, job.question)
        renderer = self.engine.renderer
        (inputs,) = await renderer.render_cmpl_async([prompt], renderer.default_cmpl_tok_params)
        job.usage.prompt_tokens += len(inputs["prompt_token_ids"])
        strategy = job.request_builder.create_strategy(job.task, inputs)
        result = None
        step = 0
        while result is None:
            outputs = await self._run_requests(strategy, f"{job.id}-{index}-{step}", job.adapter)
            result = strategy.step(outputs)
            step += 1
        job.usage.completion_tokens += len(result.token_ids)
        return result

    def _smiles(self, pair: list[Molecule]) -> list[str]:
        """Return the SMILES of a pair's molecules, converted where a molblock was sent."""
        return [
            MoleculeSpec.from_request(_as_value(molecule), "pairs", self.config).smiles
            for molecule in pair
        ]

    async def _run_requests(
        self, strategy: DecodingStrategy, id_prefix: str, adapter: Any
    ) -> list[RequestOutput]:
        """Run one round of a strategy's requests concurrently."""
        return await asyncio.gather(
            *(
                self._run_request(inputs, params, f"{id_prefix}-{index}", adapter)
                for index, (inputs, params) in enumerate(strategy.requests())
            )
        )

    async def _run_request(
        self, inputs: Any, params: SamplingParams, request_id: str, adapter: Any
    ) -> RequestOutput:
        last = None
        async for output in self.engine.generate(inputs, params, request_id, lora_request=adapter):
            last = output
        if last is None:
            raise EngineGenerateError("the engine returned no output")
        return last

    def _create_request_builder(self, request: InteractionsRequest) -> PairRequestBuilder:
        model_config = self.engine.model_config
        check_beam_width(request.beams, model_config.max_logprobs)
        settings = GenerationSettings(
            constrained=request.constrained,
            max_tokens=request.max_tokens,
            beams=request.beams,
            score=request.score,
            coverage=request.coverage,
        )
        try:
            return PairRequestBuilder(
                self.config,
                self.engine.renderer.get_tokenizer(),
                settings,
                model_config.max_logprobs,
                model_config.logprobs_mode,
                self.calibrator,
            )
        except ValueError as error:
            parameter = "beams" if request.beams > 1 else "score"
            raise VLLMValidationError(str(error), parameter=parameter) from error

    def _validated_task(self, request: InteractionsRequest) -> Task:
        """Return the request's task after checking that its pairs and question fit it."""
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
        for index, pair in enumerate(request.pairs):
            try:
                task.check(len(pair), request.question)
            except PromptError as error:
                raise VLLMValidationError(str(error), parameter=f"pairs[{index}]") from error
        return task

    def _find_model(self, name: str | None) -> tuple[str, Any]:
        """Return the served name and the adapter of a model; the base model has no adapter."""
        if not name or self.models.is_base_model(name):
            return name or self.models.base_model_paths[0].name, None
        adapter = self.models.lora_requests.get(name)
        if adapter is None:
            raise VLLMNotFoundError(f"The model `{name}` does not exist.")
        return name, adapter


def _as_value(molecule: Molecule) -> Any:
    """Return a molecule in a form that `MoleculeSpec.from_request` accepts."""
    if isinstance(molecule, MoleculeObject):
        return molecule.model_dump(exclude_none=True)
    return molecule


def _checksum(folder: Path) -> str | None:
    try:
        return weights_checksum(folder) if folder.is_dir() else None
    except (CheckpointError, OSError):
        return None
