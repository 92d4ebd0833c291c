"""From a task and its molecules to an engine's requests, and from its outputs to an `Answer`.

Who drives the engine, step by step or with coroutines, does not matter here: an `Inquiry` says
which requests it needs next, takes their outputs, and goes on until it has an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from vllm.exceptions import VLLMValidationError
from vllm.inputs import TextPrompt
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from vllm.v1.engine.exceptions import EngineGenerateError

from moltc_vllm.models.beams import BeamSearch, Candidate
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.reading import read_answer, read_text
from moltc_vllm.models.scale import LIKELIEST, Likely, interval_scale
from moltc_vllm.models.tokenizer import stop_token_id
from moltc_vllm.plugin.molecules import MODALITY, BadMoleculeError, MoleculeSpec
from moltc_vllm.tasks import (
    Answer,
    FailedStatus,
    Limits,
    Task,
    held_to_grammar,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """How answers are generated.

    Attributes:
        constrained: Hold answers to their task's grammar; default: as the checkpoint's prompt
            style has it.
        max_tokens: Longest answer; default: the style's.
        beams: Search with so many beams; 1: greedily.
        limits: In place of the style's limits.
    """

    constrained: bool | None = None
    max_tokens: int | None = None
    beams: int = 1
    limits: Limits | None = None


class Found(NamedTuple):
    """A generated text, as tokens without the stop token."""

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    cut_off: bool
    likely: Sequence[Likely] = ()  # first tokens; not of beams


class Inquiry(Protocol):
    """One pair's way through the engine."""

    def requests(self) -> list[tuple[Any, SamplingParams]]:
        """Engine inputs and parameters of the requests that are needed now."""
        ...

    def take(self, outputs: Sequence[RequestOutput]) -> Found | None:
        """Take their outputs, in order; ``None``: more requests are needed.

        Raises:
            EngineGenerateError: If the engine failed on one of them.
        """
        ...


class Interviewer:
    """Asks a checkpoint in its own style.

    Args:
        config: The checkpoint's configuration.
        tokenizer: Its tokenizer.
        settings: How answers are generated.
        max_logprobs: How many of the likeliest tokens the engine tells at most; -1: all.

    Raises:
        ValueError: If settings contradict each other.
    """

    def __init__(
        self,
        config: MoltcConfig,
        tokenizer: Any,
        settings: Settings,
        max_logprobs: int = LIKELIEST,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.settings = settings
        self.style = config.style
        self._constrained = held_to_grammar(self.style, settings.constrained, settings.beams)
        self._likeliest = LIKELIEST if max_logprobs < 0 else min(LIKELIEST, max_logprobs)
        self._stop = stop_token_id(tokenizer, self.style)

    def prompt(self, task: Task, molecules: Sequence[Any], question: str | None) -> TextPrompt:
        """The prompt of one pair.

        Raises:
            VLLMValidationError: If a molecule is not given as one.
            PromptError: If molecules or question do not fit the task or the style.
        """
        specs = [
            MoleculeSpec.of(molecule, f"molecule {place + 1}", self.config)._replace(task=task.name)
            for place, molecule in enumerate(molecules)
        ]
        text, order = self.style.compose(task, [spec.smiles for spec in specs], question)
        return TextPrompt(prompt=text, multi_modal_data={MODALITY: [specs[i] for i in order]})

    def inquiry(self, task: Task, inputs: Any) -> Inquiry:
        """Begin with a rendered prompt."""
        limits = self.settings.limits or self.style.limits(task)
        if self.settings.max_tokens is not None:
            longest = self.settings.max_tokens
            limits = limits._replace(
                max_new_tokens=longest, min_new_tokens=min(limits.min_new_tokens, longest)
            )
        if self.settings.beams > 1:
            return BeamInquiry(inputs, BeamSearch(self.settings.beams, limits, self._stop))
        return GreedyInquiry(inputs, self._sampling_params(task, limits))

    def answer(self, task: Task, found: Found) -> Answer:
        """The typed answer in a generated text."""
        answer = read_answer(
            task, self.style, self.tokenizer, found.token_ids, found.logprobs, found.likely
        )
        if answer.status == "unparsed" and found.cut_off:
            reason = f"{answer.error} (cut off after {len(found.token_ids)} tokens)"
            return task.failed("unparsed", reason, text=answer.text)
        return answer

    def text(self, token_ids: Sequence[int]) -> str:
        """Tokens as the style's users read them."""
        return read_text(self.style, self.tokenizer, token_ids)

    def _sampling_params(self, task: Task, limits: Limits) -> SamplingParams:
        grammar = task.grammar() if self._constrained else None
        arguments: dict[str, Any] = {}
        if grammar is not None:
            arguments["structured_outputs"] = (
                StructuredOutputsParams(choice=list(grammar.value))
                if grammar.kind == "choice"
                else StructuredOutputsParams(regex=str(grammar.value))
            )
            # A whole answer is followed by the tokenizer's end token, in any style.
            arguments["stop_token_ids"] = [self.tokenizer.eos_token_id]
            limits = Limits(self.settings.max_tokens or task.max_tokens)
        return SamplingParams(
            temperature=0.0,
            max_tokens=limits.max_new_tokens,
            min_tokens=limits.min_new_tokens,
            # Of the chosen token only, but for the mean of a number.
            logprobs=self._likeliest if interval_scale(task, self.tokenizer) else 0,
            detokenize=False,  # `answer` does it, once and at the end
            output_kind=RequestOutputKind.FINAL_ONLY,
            **arguments,
        )


class GreedyInquiry:
    """The likeliest tokens, in one request."""

    def __init__(self, inputs: Any, params: SamplingParams) -> None:
        self._request = (inputs, params)

    def requests(self) -> list[tuple[Any, SamplingParams]]:
        """That request."""
        return [self._request]

    def take(self, outputs: Sequence[RequestOutput]) -> Found:
        """Its output."""
        (completion,) = outputs[0].outputs
        if completion.finish_reason not in ("stop", "length"):
            raise EngineGenerateError(f"the engine gave no answer: {completion.finish_reason}")
        ids = list(completion.token_ids)
        logprobs = [
            chosen[token].logprob
            for token, chosen in zip(ids, completion.logprobs or [], strict=True)
        ]
        likely = [Likely(token, one.logprob) for token, one in completion.logprobs[0].items()]
        if completion.finish_reason == "stop":
            ids, logprobs = ids[:-1], logprobs[: len(ids) - 1]
        return Found(ids, logprobs, completion.finish_reason == "length", likely)


class BeamInquiry:
    """A beam search: every step is one request of one token for each beam.

    This is vLLM's own way, too: what beams have in common is in its prefix cache. Only the ranking
    differs, see `moltc_vllm.models.beams`.
    """

    def __init__(self, inputs: Any, search: BeamSearch) -> None:
        self._inputs = inputs
        self._search = search
        self._params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            logprobs=search.wanted,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def requests(self) -> list[tuple[Any, SamplingParams]]:
        """One token of each open beam."""
        prompt = list(self._inputs["prompt_token_ids"])
        return [
            ({**self._inputs, "prompt_token_ids": [*prompt, *beam.tokens]}, self._params)
            for beam in self._search.open
        ]

    def take(self, outputs: Sequence[RequestOutput]) -> Found | None:
        """Let the beams grow; the best answer, when no better one can come."""
        self._search.advance([_candidates(output) for output in outputs])
        if not self._search.done:
            return None
        best = self._search.best()[0]
        return Found(best.tokens, best.logprobs, not best.stopped)


def check_beams(beams: int, max_logprobs: int) -> None:
    """Refuse more beams than the engine tells candidates for.

    Raises:
        VLLMValidationError: With the flag that helps.
    """
    wanted = 2 * beams + 1
    if beams > 1 and 0 <= max_logprobs < wanted:
        raise VLLMValidationError(
            f"{beams} beams need {wanted} candidates per token: start with --max-logprobs {wanted}",
            parameter="beams",
            value=beams,
        )


def _candidates(output: RequestOutput) -> list[Candidate]:
    (completion,) = output.outputs
    if not completion.logprobs:
        raise EngineGenerateError(f"the engine gave no token: {completion.finish_reason}")
    (top,) = completion.logprobs
    return [Candidate(token, one.logprob) for token, one in top.items()]


def failure(task: Task, error: Exception) -> Answer:
    """The answer of a pair that could not be asked."""
    status: FailedStatus = "bad_molecule" if isinstance(error, BadMoleculeError) else "error"
    # The message without vLLM's parameter suffix: it names the molecule already.
    message = str(error.args[0]) if error.args else str(error)
    return task.failed(status, message or type(error).__name__)
