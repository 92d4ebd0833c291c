"""Build the engine requests of a pair of molecules, and parse generated tokens into an `Answer`.

This module does not run the engine, so both the in-process engine and the server can use it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.inputs import TextPrompt
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from moltc_vllm.models.answer_calibrator import AnswerCalibrator
from moltc_vllm.models.answer_parsing import (
    RawAnswer,
    decode_answer,
    parse_answer,
    parse_interval_token,
)
from moltc_vllm.models.answer_trie import answer_trie
from moltc_vllm.models.beam_search import BeamSearch
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.interval_tokens import NUM_CANDIDATES, interval_vocabulary
from moltc_vllm.models.prompt_composer import PromptComposer
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
    GenerationLimits,
    PromptStyle,
    Task,
    uses_grammar,
)
from moltc_vllm.utils.coverage import DEFAULT_COVERAGE

SCORING_LOGPROBS_MODE = "processed_logprobs"
"""Value of vLLM's ``logprobs_mode`` for probabilities relative to the allowed tokens."""


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """Options of generation, which the request or the engine's caller chooses.

    Attributes:
        constrained: Whether a grammar constrains answers to the task's form; default: the choice
            of the checkpoint's prompt style.
        max_tokens: Maximum length of an answer in tokens; default: the prompt style's.
        beams: Width of the beam search; 1 is greedy decoding.
        limits: Length limits that replace the prompt style's.
        score: Whether only the tokens that distinguish a task's answers are generated, see
            `moltc_vllm.models.answer_trie`. Labels and texts are the same, but a number whose
            intervals are single tokens has no text and no generated value. Other tasks, and
            answers without a grammar, are generated as usual.
        coverage: Coverage of the prediction intervals of numeric answers.
    """

    constrained: bool | None = None
    max_tokens: int | None = None
    beams: int = 1
    limits: GenerationLimits | None = None
    score: bool = False
    coverage: float = DEFAULT_COVERAGE


class PairRequestBuilder:
    """Builder of engine requests in a checkpoint's prompt style.

    Args:
        config: Configuration of the checkpoint.
        tokenizer: Tokenizer of the checkpoint.
        settings: Options of generation.
        max_logprobs: Maximum number of candidates that the engine reports for a token; -1 is all.
        logprobs_mode: Value of the engine's ``logprobs_mode``.
        calibrator: Calibrator of the checkpoint; default: none, answers are as generated.

    Raises:
        ValueError: If the settings contradict each other or the engine's ``logprobs_mode``.
    """

    def __init__(
        self,
        config: MoltcConfig,
        tokenizer: Any,
        settings: GenerationSettings,
        max_logprobs: int = NUM_CANDIDATES,
        logprobs_mode: str = SCORING_LOGPROBS_MODE,
        calibrator: AnswerCalibrator | None = None,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.settings = settings
        self._composer = PromptComposer(config)
        if settings.score and logprobs_mode != SCORING_LOGPROBS_MODE:
            raise ValueError(f"scores need an engine with --logprobs-mode {SCORING_LOGPROBS_MODE}")
        self._constrained = uses_grammar(self.style, settings.constrained, settings.beams)
        self._max_logprobs = max_logprobs
        self.calibrator = calibrator or AnswerCalibrator(config)
        self._stop = stop_token_id(tokenizer, self.style)

    @property
    def style(self) -> PromptStyle:
        """Prompt style; the checkpoint's, unless another one was set."""
        return self._composer.style

    @style.setter
    def style(self, style: PromptStyle) -> None:
        self._composer.style = style

    def build_prompt(
        self, task: Task, molecules: Sequence[Any], question: str | None
    ) -> TextPrompt:
        """Build the prompt of one pair.

        Args:
            task: Task to answer.
            molecules: Molecules in the order of the task's roles, in any form that
                `MoleculeSpec.from_request` accepts.
            question: Question of a task that takes one.

        Raises:
            VLLMValidationError: If a molecule has none of these forms.
            PromptError: If molecules or question do not fit the task or the prompt style.
        """
        specs = [
            MoleculeSpec.from_request(molecule, f"molecule {index + 1}", self.config)._replace(
                task=task.name
            )
            for index, molecule in enumerate(molecules)
        ]
        text, order = self._composer.compose(task, [spec.smiles for spec in specs], question)
        return TextPrompt(
            prompt=text, multi_modal_data={MODALITY: [specs[index] for index in order]}
        )

    def create_strategy(self, task: Task, inputs: Any) -> DecodingStrategy:
        """Create the decoding strategy for a rendered prompt.

        Args:
            task: Task to answer.
            inputs: Prompt as rendered by vLLM's renderer.
        """
        # Without a grammar the answer may be any text, not only a leaf of the trie.
        if (
            self.settings.score
            and self._constrained
            and (trie := answer_trie(task, self.tokenizer))
        ):
            return ForcedChoiceDecoding(inputs, trie, self._num_candidates(task))
        limits = self._length_limits(task)
        if self.settings.beams > 1:
            return BeamDecoding(inputs, BeamSearch(self.settings.beams, limits, self._stop))
        return GreedyDecoding(inputs, self._sampling_params(task, limits))

    def parse_result(
        self, task: Task, result: GenerationResult, smiles: Sequence[str] = ()
    ) -> Answer:
        """Parse generated tokens into a typed and calibrated answer.

        Args:
            task: Task that was answered.
            result: Generated tokens.
            smiles: SMILES of the molecules in the order of the task's roles.
        """
        raw = self._parse_raw(task, result)
        return self.calibrator.complete(task, raw, smiles, self.settings.coverage)

    def _parse_raw(self, task: Task, result: GenerationResult) -> RawAnswer:
        # Half precision overflows on molecules far outside the training data.
        if any(map(math.isnan, result.logprobs)):
            return RawAnswer(task.failed("error", "the model's probabilities are not numbers"))
        if result.scored and interval_vocabulary(task, self.tokenizer) is not None:
            return parse_interval_token(
                task,
                self.tokenizer,
                result.token_ids[-1],
                result.logprobs[-1],
                result.first_token_candidates,
            )
        raw = parse_answer(
            task,
            self.style,
            self.tokenizer,
            result.token_ids,
            result.logprobs,
            result.first_token_candidates,
        )
        answer = raw.answer
        if answer.status == "unparsed" and result.truncated:
            reason = f"{answer.error} (cut off after {len(result.token_ids)} tokens)"
            return RawAnswer(task.failed("unparsed", reason, text=answer.text))
        return raw

    def _num_candidates(self, task: Task) -> int:
        count = self.calibrator.num_candidates(task)
        return count if self._max_logprobs < 0 else min(count, self._max_logprobs)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Decode generated tokens to the text that the prompt style shows to users."""
        return decode_answer(self.style, self.tokenizer, token_ids)

    def _length_limits(self, task: Task) -> GenerationLimits:
        limits = self.settings.limits or self.style.limits(task)
        if self.settings.max_tokens is None:
            return limits
        max_tokens = self.settings.max_tokens
        return limits._replace(
            max_new_tokens=max_tokens, min_new_tokens=min(limits.min_new_tokens, max_tokens)
        )

    def _sampling_params(self, task: Task, limits: GenerationLimits) -> SamplingParams:
        grammar = task.grammar() if self._constrained else None
        arguments: dict[str, Any] = {}
        if grammar is not None:
            arguments["structured_outputs"] = (
                StructuredOutputsParams(choice=list(grammar.value))
                if grammar.kind == "choice"
                else StructuredOutputsParams(regex=str(grammar.value))
            )
            # A grammar ends with the tokenizer's end token, in every prompt style.
            arguments["stop_token_ids"] = [self.tokenizer.eos_token_id]
            limits = GenerationLimits(self.settings.max_tokens or task.max_tokens)
        return SamplingParams(
            temperature=0.0,
            max_tokens=limits.max_new_tokens,
            min_tokens=limits.min_new_tokens,
            # Only the mean over a number's intervals needs more than the chosen token.
            logprobs=self._num_candidates(task) if interval_vocabulary(task, self.tokenizer) else 0,
            flat_logprobs=True,
            detokenize=False,  # `parse_result` decodes all tokens at once
            output_kind=RequestOutputKind.FINAL_ONLY,
            **arguments,
        )


def check_beam_width(beams: int, max_logprobs: int) -> None:
    """Check that the engine reports enough candidates for a beam search.

    Args:
        beams: Width of the beam search.
        max_logprobs: Maximum number of candidates that the engine reports for a token; -1 is all.

    Raises:
        VLLMValidationError: If there are too few; the message names the flag to set.
    """
    needed = 2 * beams + 1
    if beams > 1 and 0 <= max_logprobs < needed:
        raise VLLMValidationError(
            f"{beams} beams need {needed} candidates per token: start with --max-logprobs {needed}",
            parameter="beams",
            value=beams,
        )


def failed_answer(task: Task, error: Exception) -> Answer:
    """Build the answer of a pair that the engine could not process.

    Args:
        task: Task to answer.
        error: Error that was raised for this pair.
    """
    status: FailedStatus = "bad_molecule" if isinstance(error, BadMoleculeError) else "error"
    # `str(error)` would end with vLLM's parameter suffix; the message names the molecule already.
    message = str(error.args[0]) if error.args else str(error)
    return task.failed(status, message or type(error).__name__)
