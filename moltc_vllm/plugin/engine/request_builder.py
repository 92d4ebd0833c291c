"""From a task and its molecules to an engine's requests, and from its outputs to an `Answer`.

Who drives the engine, step by step or with coroutines, does not matter here: an `DecodingStrategy` says
which requests it needs next, takes their outputs, and goes on until it has an answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.inputs import TextPrompt
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from moltc_vllm.models.answer_parsing import read_answer, read_interval, read_text
from moltc_vllm.models.answer_trie import answer_trie
from moltc_vllm.models.beam_search import BeamSearch
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.interval_tokens import LIKELIEST, interval_vocabulary
from moltc_vllm.models.tokenizer import stop_token_id
from moltc_vllm.plugin.engine.decoding_strategies import (
    BeamDecoding,
    DecodingStrategy,
    ForcedChoiceDecoding,
    GenerationResult,
    GreedyDecoding,
)
from moltc_vllm.plugin.modality.molecules import MODALITY, BadMoleculeError, MoleculeSpec
from moltc_vllm.tasks import (
    Answer,
    FailedStatus,
    Limits,
    Task,
    held_to_grammar,
)

SCORES = "processed_logprobs"
"""vLLM's ``logprobs_mode`` in which probabilities are among what may stand in a place."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How answers are generated.

    Attributes:
        constrained: Hold answers to their task's grammar; default: as the checkpoint's prompt
            style has it.
        max_tokens: Longest answer; default: the style's.
        beams: Search with so many beams; 1: greedily.
        limits: In place of the style's limits.
        score: Ask only what there is to decide, see `moltc_vllm.models.answer_trie`. The text is the
            same; but numbers, where each interval is one token, have none, and no stated value.
            Other tasks, and answers that are not held to a grammar, are generated as always.
    """

    constrained: bool | None = None
    max_tokens: int | None = None
    beams: int = 1
    limits: Limits | None = None
    score: bool = False


class PairRequestBuilder:
    """Asks a checkpoint in its own style.

    Args:
        config: The checkpoint's configuration.
        tokenizer: Its tokenizer.
        settings: How answers are generated.
        max_logprobs: How many of the likeliest tokens the engine tells at most; -1: all.
        logprobs_mode: Of the engine.

    Raises:
        ValueError: If settings contradict each other, or the engine's mode.
    """

    def __init__(
        self,
        config: MoltcConfig,
        tokenizer: Any,
        settings: Settings,
        max_logprobs: int = LIKELIEST,
        logprobs_mode: str = SCORES,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.settings = settings
        self.style = config.style
        if settings.score and logprobs_mode != SCORES:
            raise ValueError(f"scores need an engine with --logprobs-mode {SCORES}")
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

    def strategy(self, task: Task, inputs: Any) -> DecodingStrategy:
        """Begin with a rendered prompt."""
        # What is not held to a grammar may say anything: it has to be generated.
        held = self.settings.score and self._constrained
        if held and (tree := answer_trie(task, self.tokenizer)):
            return ForcedChoiceDecoding(inputs, tree, self._likeliest)
        limits = self.settings.limits or self.style.limits(task)
        if self.settings.max_tokens is not None:
            longest = self.settings.max_tokens
            limits = limits._replace(
                max_new_tokens=longest, min_new_tokens=min(limits.min_new_tokens, longest)
            )
        if self.settings.beams > 1:
            return BeamDecoding(inputs, BeamSearch(self.settings.beams, limits, self._stop))
        return GreedyDecoding(inputs, self._sampling_params(task, limits))

    def answer(self, task: Task, found: GenerationResult) -> Answer:
        """The typed answer in a generated text."""
        if any(map(math.isnan, found.logprobs)):  # half precision, on a molecule out of range
            return task.failed("error", "the model's probabilities are not numbers")
        if found.scored and interval_vocabulary(task, self.tokenizer) is not None:
            token, logprob = found.token_ids[-1], found.logprobs[-1]
            return read_interval(task, self.tokenizer, token, logprob, found.likely)
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
            logprobs=self._likeliest if interval_vocabulary(task, self.tokenizer) else 0,
            detokenize=False,  # `answer` does it, once and at the end
            output_kind=RequestOutputKind.FINAL_ONLY,
            **arguments,
        )


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


def failure(task: Task, error: Exception) -> Answer:
    """The answer of a pair that could not be asked."""
    status: FailedStatus = "bad_molecule" if isinstance(error, BadMoleculeError) else "error"
    # The message without vLLM's parameter suffix: it names the molecule already.
    message = str(error.args[0]) if error.args else str(error)
    return task.failed(status, message or type(error).__name__)
