"""vLLM's engine in the caller's process as an `Engine`."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moltc_vllm.plugin.engine.lora_arguments import folder_adapters, lora_arguments
from moltc_vllm.plugin.launcher import engine_defaults, on_cpu, prepare_environment

# vLLM reads its environment when it is imported.
prepare_environment()

from vllm import EngineArgs, LLMEngine  # noqa: E402
from vllm.exceptions import VLLMClientError  # noqa: E402
from vllm.lora.request import LoRARequest  # noqa: E402
from vllm.outputs import RequestOutput  # noqa: E402
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError  # noqa: E402

from moltc_vllm.models.answer_calibrator import AnswerCalibrator  # noqa: E402
from moltc_vllm.models.prompt_composer import ignores_order  # noqa: E402
from moltc_vllm.plugin.engine.decoding_strategies import (  # noqa: E402
    DecodingStrategy,
    GenerationResult,
)
from moltc_vllm.plugin.engine.request_builder import (  # noqa: E402
    GenerationSettings,
    PairRequestBuilder,
    check_beam_width,
    failed_answer,
)
from moltc_vllm.tasks import Answer, GenerationLimits, Task, get_task  # noqa: E402
from moltc_vllm.tasks.engine import COUNTERS, EngineError, Pair  # noqa: E402
from moltc_vllm.utils.coverage import DEFAULT_COVERAGE, check_coverage  # noqa: E402
from moltc_vllm.utils.standardization import (  # noqa: E402
    Standardization,
    check_standardization,
)

_MULTIPROCESSING_ENV = "VLLM_ENABLE_V1_MULTIPROCESSING"
_CPU_BINDING_ENV = "VLLM_CPU_OMP_THREADS_BIND"

# Engine that runs in this process, if any.
_in_process_engine: weakref.ref[LLMEngine] | None = None


def _start_engine(arguments: EngineArgs) -> LLMEngine:
    """Start an engine; on CPU it runs in this process, unless environment variables forbid it.

    On CPU the engine shares cores with the caller, so inter-process communication costs more than
    running in parallel gains. Only one engine can run in a process, because shutting it down
    releases vLLM's process-wide state; a second engine gets separate processes. So does an engine
    with bound cores, because vLLM binds the cores of a whole process.
    """
    global _in_process_engine
    binds_cores = os.environ.get(_CPU_BINDING_ENV) != "nobind"
    if (
        not on_cpu()
        or binds_cores
        or _MULTIPROCESSING_ENV in os.environ
        or (_in_process_engine and _in_process_engine())
    ):
        return LLMEngine.from_engine_args(arguments, enable_multiprocessing=_uses_multiprocessing())
    os.environ[_MULTIPROCESSING_ENV] = "0"
    set_num_threads = torch.set_num_threads
    try:
        with _preserve_rng_state():
            engine = LLMEngine.from_engine_args(arguments)
    finally:
        del os.environ[_MULTIPROCESSING_ENV]
    _in_process_engine = weakref.ref(engine)
    # The worker replaces `torch.set_num_threads` with a function that only logs a warning; the
    # original is restored when the engine ends. vLLM calls it around each tokenization, where
    # these warnings take 7 % of the time, so they are silenced.
    weakref.finalize(engine, setattr, torch, "set_num_threads", set_num_threads)
    logging.getLogger("vllm.v1.worker.cpu_worker").setLevel(logging.ERROR)
    return engine


def _uses_multiprocessing() -> bool:
    return os.environ.get(_MULTIPROCESSING_ENV, "1") != "0"


@contextlib.contextmanager
def _preserve_rng_state() -> Iterator[None]:
    """Restore the RNG state that vLLM's worker overwrites."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@dataclass(slots=True)
class _OpenPair:
    """A pair whose answer is not complete.

    Attributes:
        pair: The pair as the caller gave it.
        strategy: Decoding strategy that generates its answer.
        adapter: Adapter of the task, if it has one.
        outputs: Output of each request of the current round; ``None`` until it is finished.
    """

    pair: Pair
    strategy: DecodingStrategy
    adapter: LoRARequest | None
    outputs: list[RequestOutput | None] = field(default_factory=list)


@dataclass(slots=True)
class _InFlight:
    """Requests and pairs of one `VllmEngine.generate` call that the engine holds.

    Attributes:
        requests: Pair and index in its round of each unfinished request, by request id.
        pair_count: Number of pairs whose answers are not complete.
    """

    requests: dict[str, tuple[_OpenPair, int]] = field(default_factory=dict)
    pair_count: int = 0


class VllmEngine:
    """vLLM's engine and scheduler, stepped synchronously by the caller.

    A task is answered with its adapter if the checkpoint folder has one, unless ``enable_lora``
    is false.

    Args:
        model: Checkpoint folder.
        constrained: Whether a grammar constrains answers to the task's form; default: the choice
            of the checkpoint's prompt style, and false with a beam search.
        max_in_flight: Maximum number of pairs in the engine at the same time.
        beams: Width of the beam search; 1 is greedy decoding.
        limits: Length limits of answers that replace the prompt style's.
        score: Whether only the tokens that distinguish answers are generated, see
            `GenerationSettings.score`.
        coverage: Coverage of the prediction intervals of numeric answers.
        standardize: How molecules are standardized; default: the choice of the checkpoint.
        **engine_args: Further arguments of `vllm.EngineArgs`.

    Raises:
        AdapterError: If an adapter of the folder is incomplete or does not fit.
        ValueError: If both a beam search and a grammar are requested.
    """

    def __init__(
        self,
        model: Path | str,
        *,
        constrained: bool | None = None,
        max_in_flight: int = 256,
        beams: int = 1,
        limits: GenerationLimits | None = None,
        score: bool = False,
        coverage: float = DEFAULT_COVERAGE,
        standardize: Standardization | None = None,
        **engine_args: Any,
    ) -> None:
        self.coverage = check_coverage(coverage)
        self.max_in_flight = max_in_flight
        defaults = engine_defaults()
        defaults["max_logprobs"] = max(defaults["max_logprobs"], 2 * beams + 1)
        adapters = folder_adapters(Path(model)) if engine_args.get("enable_lora", True) else []
        self._adapters = {
            adapter.name: LoRARequest(adapter.name, lora_id, str(adapter.path.absolute()))
            for lora_id, adapter in enumerate(adapters, start=1)
        }
        defaults |= lora_arguments(adapters, on_cpu=on_cpu())
        arguments = {**defaults, "disable_log_stats": True, **engine_args}
        if standardize is not None:
            overrides = {"standardization": check_standardization(standardize)}
            arguments["hf_overrides"] = {**engine_args.get("hf_overrides", {}), **overrides}
        self.engine = _start_engine(EngineArgs(model=str(model), **arguments))
        config = self.engine.model_config
        check_beam_width(beams, config.max_logprobs)
        self.standardize: Standardization = config.hf_config.standardization
        self.request_builder = PairRequestBuilder(
            config.hf_config,
            self.engine.get_tokenizer(),
            GenerationSettings(
                constrained=constrained,
                beams=beams,
                limits=limits,
                score=score,
                coverage=coverage,
            ),
            config.max_logprobs,
            config.logprobs_mode,
            AnswerCalibrator.load(Path(model), config.hf_config),
        )
        self._request_ids = itertools.count()
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._busy = False
        self._broken = False

    def counters(self) -> dict[str, int]:
        """Return the counts of `moltc_vllm.tasks.engine.COUNTERS` since the engine was started."""
        return dict(self._counts)

    def ignores_order(self, task: str) -> bool:
        """See `moltc_vllm.tasks.engine.OrderAwareEngine`."""
        return ignores_order(self.request_builder.config, get_task(task))

    def submit(
        self, task: str, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, Answer]]:
        """Answer every pair; see `moltc_vllm.tasks.engine.Engine`.

        Raises:
            UnknownTaskError: If the task does not exist.
        """
        known_task = get_task(task)
        for pair, result in self.generate(known_task, pairs, question):
            if isinstance(result, Answer):
                yield pair, result
            else:
                answer = self.request_builder.parse_result(known_task, result, pair.molecules)
                yield pair, answer

    def generate(
        self, task: Task, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, GenerationResult | Answer]]:
        """Generate the tokens of every pair's answer without parsing them.

        Args:
            task: Task to answer.
            pairs: Pairs to answer, read only as fast as the engine takes them.
            question: Question of a task that takes one.

        Yields:
            Each pair with its tokens, or with an `Answer` that holds the error of a failed pair.

        Raises:
            EngineError: If the engine dies, or an earlier call is still running.
        """
        if self._busy:
            raise EngineError("the engine is still answering the pairs of an earlier call")
        if self._broken:
            raise EngineError("vLLM's engine was interrupted in a step: open another one")
        in_flight = _InFlight()
        self._busy = True
        try:
            yield from self._run(task, iter(pairs), question, in_flight)
        except EngineDeadError as error:
            in_flight.requests.clear()
            raise EngineError("vLLM's engine has ended") from error
        finally:
            self._busy = False
            if in_flight.requests:  # the caller stopped iterating
                self.engine.abort_request(list(in_flight.requests))

    def _run(
        self, task: Task, remaining: Iterator[Pair], question: str | None, in_flight: _InFlight
    ) -> Iterator[tuple[Pair, GenerationResult | Answer]]:
        """Alternate between filling and stepping the engine until all pairs are complete."""
        while True:
            yield from self._fill(task, remaining, question, in_flight)
            if not in_flight.requests:
                return
            for output in self._step():
                if output.finished and (result := self._resolve(task, output, in_flight)):
                    yield result

    def _fill(
        self, task: Task, remaining: Iterator[Pair], question: str | None, in_flight: _InFlight
    ) -> Iterator[tuple[Pair, Answer]]:
        """Submit pairs until the engine holds `max_in_flight`; yield those that are rejected."""
        while in_flight.pair_count < self.max_in_flight:
            pair = next(remaining, None)
            if pair is None:
                return
            try:
                self._submit_pair(task, pair, question, in_flight)
            except (VLLMClientError, ValueError) as error:
                yield pair, failed_answer(task, error)

    def _submit_pair(
        self, task: Task, pair: Pair, question: str | None, in_flight: _InFlight
    ) -> None:
        prompt = self.request_builder.build_prompt(task, pair.molecules, question)
        (inputs,) = self.engine.renderer.render_cmpl([prompt])
        strategy = self.request_builder.create_strategy(task, inputs)
        self._add_requests(_OpenPair(pair, strategy, self._adapters.get(task.name)), in_flight)
        in_flight.pair_count += 1

    def _add_requests(self, open_pair: _OpenPair, in_flight: _InFlight) -> None:
        """Add the next round of a pair's requests to the engine."""
        requests = open_pair.strategy.requests()
        open_pair.outputs = [None] * len(requests)
        for index, (inputs, params) in enumerate(requests):
            request_id = f"pair-{next(self._request_ids)}"
            self.engine.add_request(request_id, inputs, params, lora_request=open_pair.adapter)
            in_flight.requests[request_id] = (open_pair, index)

    def _step(self) -> list[RequestOutput]:
        """Run one engine step; an interrupted step leaves the engine's caches inconsistent."""
        try:
            return self.engine.step()
        except EngineDeadError:
            raise
        except BaseException as error:
            self._broken = True
            if isinstance(error, Exception):  # an engine in a separate process would have died
                raise EngineError(f"vLLM's engine has failed: {error}") from error
            raise

    def _resolve(
        self, task: Task, output: RequestOutput, in_flight: _InFlight
    ) -> tuple[Pair, GenerationResult | Answer] | None:
        """Record a finished request; return the pair's result if this completes its answer."""
        self._counts["prompt_tokens"] += len(output.prompt_token_ids or ())
        self._counts["cached_tokens"] += output.num_cached_tokens or 0
        open_pair, index = in_flight.requests.pop(output.request_id)
        open_pair.outputs[index] = output
        outputs = [finished for finished in open_pair.outputs if finished is not None]
        if len(outputs) < len(open_pair.outputs):
            return None
        result: GenerationResult | Answer | None
        try:
            result = open_pair.strategy.step(outputs)
        except EngineGenerateError as error:
            result = failed_answer(task, error)
        if result is None:
            self._add_requests(open_pair, in_flight)
            return None
        in_flight.pair_count -= 1
        return open_pair.pair, result
