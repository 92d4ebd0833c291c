"""vLLM in this process as an `Engine`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from moltc_vllm.plugin.launcher import engine_defaults, prepare_environment

# vLLM reads its environment when it is imported.
prepare_environment()

from vllm import EngineArgs, LLMEngine  # noqa: E402
from vllm.exceptions import VLLMClientError  # noqa: E402

from moltc_vllm.plugin.answering import (  # noqa: E402
    failure,
    read_output,
    sampling_params,
    text_prompt,
)
from moltc_vllm.tasks import Answer, get_task  # noqa: E402
from moltc_vllm.tasks.engine import Pair  # noqa: E402


class VllmEngine:
    """The true engine and scheduler, driven step by step.

    Args:
        model: Checkpoint folder.
        constrained: Hold answers to their task's grammar.
        max_in_flight: Pairs the engine holds at once.
        **engine_args: Further `vllm.EngineArgs`.
    """

    def __init__(
        self,
        model: Path | str,
        *,
        constrained: bool = True,
        max_in_flight: int = 256,
        **engine_args: Any,
    ) -> None:
        self.constrained = constrained
        self.max_in_flight = max_in_flight
        arguments = {**engine_defaults(), "disable_log_stats": True, **engine_args}
        self.engine = LLMEngine.from_engine_args(EngineArgs(model=str(model), **arguments))
        self._numbers = itertools.count()

    def submit(
        self, task: str, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, Answer]]:
        """Answer every pair; see `moltc_vllm.tasks.engine.Engine`.

        Raises:
            UnknownTaskError: If there is no such task.
        """
        wanted = get_task(task)
        params = sampling_params(wanted, constrained=self.constrained)
        config = self.engine.model_config.hf_config
        renderer = self.engine.renderer
        waiting: dict[str, Pair] = {}
        source = iter(pairs)
        exhausted = False
        try:
            while waiting or not exhausted:
                while not exhausted and len(waiting) < self.max_in_flight:
                    pair = next(source, None)
                    if pair is None:
                        exhausted = True
                        break
                    try:
                        prompt = text_prompt(wanted, pair.molecules, config, question)
                        (inputs,) = renderer.render_cmpl([prompt])
                        request = f"pair-{next(self._numbers)}"
                        self.engine.add_request(request, inputs, params)
                        waiting[request] = pair
                    except (VLLMClientError, ValueError) as error:
                        yield pair, failure(wanted, error)
                for output in self.engine.step():
                    if output.finished:
                        yield waiting.pop(output.request_id), read_output(wanted, output)
        finally:
            if waiting:  # the caller stopped early
                self.engine.abort_request(list(waiting))
