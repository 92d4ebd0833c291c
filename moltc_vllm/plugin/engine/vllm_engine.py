"""vLLM in this process as an `Engine`."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moltc_vllm.plugin.launcher import engine_defaults, on_cpu, prepare_environment
from moltc_vllm.plugin.lora_arguments import folder_modules, lora_arguments

# vLLM reads its environment when it is imported.
prepare_environment()

from vllm import EngineArgs, LLMEngine  # noqa: E402
from vllm.exceptions import VLLMClientError  # noqa: E402
from vllm.lora.request import LoRARequest  # noqa: E402
from vllm.outputs import RequestOutput  # noqa: E402
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError  # noqa: E402

from moltc_vllm.plugin.engine.decoding_strategies import (  # noqa: E402
    DecodingStrategy,
    GenerationResult,
)
from moltc_vllm.plugin.engine.request_builder import (  # noqa: E402
    PairRequestBuilder,
    Settings,
    check_beams,
    failure,
)
from moltc_vllm.tasks import Answer, Limits, Task, get_task  # noqa: E402
from moltc_vllm.tasks.engine import COUNTERS, EngineError, Pair  # noqa: E402


@dataclass(slots=True)
class _Asked:
    """A pair in the engine, and which outputs of its requests have come."""

    pair: Pair
    strategy: DecodingStrategy
    outputs: list[RequestOutput | None]
    adapter: LoRARequest | None


_MULTIPROCESSING_ENV = "VLLM_ENABLE_V1_MULTIPROCESSING"
_BINDING = "VLLM_CPU_OMP_THREADS_BIND"
_in_process_engine: weakref.ref[LLMEngine] | None = None  # the engine of this process


def _engine(arguments: EngineArgs) -> LLMEngine:
    """Start an engine: without a GPU in this process, unless the user has said otherwise.

    There engine, worker and this process have the same cores, and what they send each other takes
    longer than what they could do meanwhile. One at a time: the end of one would take what all
    engines of a process have in common. Cores can only be bound to a worker's own process.
    """
    global _in_process_engine
    bound = os.environ.get(_BINDING) != "nobind"
    if (
        not on_cpu()
        or bound
        or _MULTIPROCESSING_ENV in os.environ
        or (_in_process_engine and _in_process_engine())
    ):
        return LLMEngine.from_engine_args(arguments, enable_multiprocessing=_uses_multiprocessing())
    os.environ[_MULTIPROCESSING_ENV] = "0"
    set_threads = torch.set_num_threads
    try:
        with _preserve_rng_state():
            engine = LLMEngine.from_engine_args(arguments)
    finally:
        del os.environ[_MULTIPROCESSING_ENV]
    _in_process_engine = weakref.ref(engine)
    # While it lives, nobody may change the number of threads: vLLM itself would, around each text
    # that it tokenises, and its worker says so each time, which would take 7 % of the time.
    weakref.finalize(engine, setattr, torch, "set_num_threads", set_threads)
    logging.getLogger("vllm.v1.worker.cpu_worker").setLevel(logging.ERROR)
    return engine


def _uses_multiprocessing() -> bool:
    return os.environ.get(_MULTIPROCESSING_ENV, "1") != "0"


@contextlib.contextmanager
def _preserve_rng_state() -> Iterator[None]:
    """Give back what a worker takes of a process that it believes to be its own."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class VllmEngine:
    """The true engine and scheduler, driven step by step.

    A task for which the folder has an adapter is answered with it, unless ``enable_lora=False``.

    Args:
        model: Checkpoint folder.
        constrained: Hold answers to their task's grammar; default: as the checkpoint's prompt
            style has it, and never with beams.
        max_in_flight: Pairs the engine holds at once.
        beams: Search answers with so many beams; 1: greedily.
        limits: Lengths of answers, in place of the prompt style's.
        score: Ask only what there is to decide, see `Settings.score`.
        **engine_args: Further `vllm.EngineArgs`.

    Raises:
        AdapterError: If one of the folder's adapters is not whole, or does not fit.
        ValueError: If beams and grammar are both wanted.
    """

    def __init__(
        self,
        model: Path | str,
        *,
        constrained: bool | None = None,
        max_in_flight: int = 256,
        beams: int = 1,
        limits: Limits | None = None,
        score: bool = False,
        **engine_args: Any,
    ) -> None:
        self.max_in_flight = max_in_flight
        # vLLM tells 20 candidates of a token unless it is told otherwise.
        defaults = {**engine_defaults(), "max_logprobs": max(20, 2 * beams + 1)}
        wanted = engine_args.get("enable_lora", True)
        modules = folder_modules(Path(model)) if wanted else []
        self._adapters = {
            module.name: LoRARequest(module.name, number, str(module.path.absolute()))
            for number, module in enumerate(modules, start=1)
        }
        defaults |= lora_arguments(modules, on_cpu=on_cpu())
        arguments = {**defaults, "disable_log_stats": True, **engine_args}
        self.engine = _engine(EngineArgs(model=str(model), **arguments))
        config = self.engine.model_config
        check_beams(beams, config.max_logprobs)
        self.request_builder = PairRequestBuilder(
            config.hf_config,
            self.engine.get_tokenizer(),
            Settings(constrained=constrained, beams=beams, limits=limits, score=score),
            config.max_logprobs,
            config.logprobs_mode,
        )
        self._numbers = itertools.count()
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._busy = False
        self._broken = False

    def counters(self) -> dict[str, int]:
        """See `moltc_vllm.tasks.engine.Counting`."""
        return dict(self._counts)

    def submit(
        self, task: str, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, Answer]]:
        """Answer every pair; see `moltc_vllm.tasks.engine.Engine`.

        Raises:
            UnknownTaskError: If there is no such task.
        """
        wanted = get_task(task)
        for pair, found in self.generate(wanted, pairs, question):
            if isinstance(found, Answer):
                yield pair, found
            else:
                yield pair, self.request_builder.answer(wanted, found)

    def generate(
        self, task: Task, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, GenerationResult | Answer]]:
        """As `submit`, but tokens as they were generated; an `Answer` for pairs that failed.

        Raises:
            EngineError: If the engine ends, or an earlier call has not.
        """
        if self._busy:
            raise EngineError("the engine is at work on other pairs")
        if self._broken:
            raise EngineError("vLLM's engine was interrupted in a step: open another one")
        waiting: dict[str, tuple[_Asked, int]] = {}
        source = iter(pairs)
        open_pairs = 0
        exhausted = False
        self._busy = True
        try:
            while waiting or not exhausted:
                while not exhausted and open_pairs < self.max_in_flight:
                    pair = next(source, None)
                    if pair is None:
                        exhausted = True
                        break
                    try:
                        self._begin(task, pair, question, waiting)
                        open_pairs += 1
                    except (VLLMClientError, ValueError) as error:
                        yield pair, failure(task, error)
                for output in self._step():
                    if not output.finished:
                        continue
                    self._counts["prompt_tokens"] += len(output.prompt_token_ids or ())
                    self._counts["cached_tokens"] += output.num_cached_tokens or 0
                    asked, place = waiting.pop(output.request_id)
                    asked.outputs[place] = output
                    outputs = [one for one in asked.outputs if one is not None]
                    if len(outputs) < len(asked.outputs):
                        continue
                    found: GenerationResult | Answer | None
                    try:
                        found = asked.strategy.step(outputs)
                    except EngineGenerateError as error:
                        found = failure(task, error)
                    if found is None:
                        self._send(asked, waiting)
                    else:
                        open_pairs -= 1
                        yield asked.pair, found
        except EngineDeadError as error:
            waiting.clear()
            raise EngineError("vLLM's engine has ended") from error
        finally:
            self._busy = False
            if waiting:  # the caller stopped early
                self.engine.abort_request(list(waiting))

    def _step(self) -> list[RequestOutput]:
        """One step of the engine. What ends it half way leaves caches that say what is not so."""
        try:
            return self.engine.step()
        except EngineDeadError:
            raise
        except BaseException as error:
            self._broken = True
            if isinstance(error, Exception):  # in a process of its own it would have died
                raise EngineError(f"vLLM's engine has failed: {error}") from error
            raise

    def _begin(
        self,
        task: Task,
        pair: Pair,
        question: str | None,
        waiting: dict[str, tuple[_Asked, int]],
    ) -> None:
        prompt = self.request_builder.prompt(task, pair.molecules, question)
        (inputs,) = self.engine.renderer.render_cmpl([prompt])
        strategy = self.request_builder.strategy(task, inputs)
        self._send(_Asked(pair, strategy, [], self._adapters.get(task.name)), waiting)

    def _send(self, asked: _Asked, waiting: dict[str, tuple[_Asked, int]]) -> None:
        requests = asked.strategy.requests()
        asked.outputs = [None] * len(requests)
        for place, (inputs, params) in enumerate(requests):
            name = f"pair-{next(self._numbers)}"
            self.engine.add_request(name, inputs, params, lora_request=asked.adapter)
            waiting[name] = (asked, place)
