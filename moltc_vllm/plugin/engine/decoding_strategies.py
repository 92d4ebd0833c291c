"""A pair's way through the engine: which requests it needs, and what their outputs come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from vllm.exceptions import VLLMServerError
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from moltc_vllm.models.answer_trie import TrieNode
from moltc_vllm.models.beam_search import BeamSearch, Candidate
from moltc_vllm.models.interval_tokens import TokenCandidate


class GenerationResult(NamedTuple):
    """A generated text, as tokens without the stop token."""

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    cut_off: bool
    likely: Sequence[TokenCandidate] = ()  # first tokens; not of beams
    scored: bool = False  # whether only what is decided was asked, see `Settings.score`


class DecodingStrategy(Protocol):
    """One pair's way through the engine."""

    def requests(self) -> list[tuple[Any, SamplingParams]]:
        """Engine inputs and parameters of the requests that are needed now."""
        ...

    def step(self, outputs: Sequence[RequestOutput]) -> GenerationResult | None:
        """Take their outputs, in order; ``None``: more requests are needed.

        Raises:
            EngineGenerateError: If the engine failed on one of them.
            EngineDeadError: If it was shut down meanwhile.
        """
        ...


class GreedyDecoding:
    """The likeliest tokens, in one request."""

    def __init__(self, inputs: Any, params: SamplingParams) -> None:
        self._request = (inputs, params)

    def requests(self) -> list[tuple[Any, SamplingParams]]:
        """That request."""
        return [self._request]

    def step(self, outputs: Sequence[RequestOutput]) -> GenerationResult:
        """Its output."""
        (completion,) = outputs[0].outputs
        if completion.finish_reason not in ("stop", "length"):
            raise _failure(completion, "answer")
        ids = list(completion.token_ids)
        logprobs = [
            chosen[token].logprob
            for token, chosen in zip(ids, completion.logprobs or [], strict=True)
        ]
        likely = [
            TokenCandidate(token, one.logprob) for token, one in completion.logprobs[0].items()
        ]
        if completion.finish_reason == "stop":
            ids, logprobs = ids[:-1], logprobs[: len(ids) - 1]
        return GenerationResult(ids, logprobs, completion.finish_reason == "length", likely)


class BeamDecoding:
    """A beam search: every step is one request of one token for each beam.

    This is vLLM's own way, too: what beams have in common is in its prefix cache. Only the ranking
    differs, see `moltc_vllm.models.beam_search`.
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

    def step(self, outputs: Sequence[RequestOutput]) -> GenerationResult | None:
        """Let the beams grow; the best answer, when no better one can come."""
        self._search.advance([_candidates(output) for output in outputs])
        if not self._search.done:
            return None
        best = self._search.best()[0]
        return GenerationResult(best.tokens, best.logprobs, not best.stopped)


class ForcedChoiceDecoding:
    """Walks down a tree of answers, and takes the likeliest way at each fork.

    A held answer is the same: what a grammar leaves no choice about has a probability of 1 under
    its mask. Here it is not generated, but stands in the prompt of the next request; all before it
    is in the prefix cache.
    """

    def __init__(self, inputs: Any, tree: TrieNode, likeliest: int) -> None:
        self._inputs = inputs
        self._likeliest = likeliest
        self._tokens, self._node = tree.forced_prefix()
        self._logprobs = [0.0] * len(self._tokens)
        self._likely: list[TokenCandidate] = []

    def requests(self) -> list[tuple[Any, SamplingParams]]:
        """One token of those that may stand here."""
        params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            logprobs=self._likeliest,
            allowed_token_ids=list(self._node.children),
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,  # hundreds of tokens, copied one by one, and these are nobody else's
        )
        prompt = [*self._inputs["prompt_token_ids"], *self._tokens]
        return [({**self._inputs, "prompt_token_ids": prompt}, params)]

    def step(self, outputs: Sequence[RequestOutput]) -> GenerationResult | None:
        """The way that was chosen; the whole answer, when it leads to an end."""
        (completion,) = outputs[0].outputs
        if not completion.logprobs:
            raise _failure(completion, "token")
        (token,), (top,) = completion.token_ids, completion.logprobs
        if not self._likely:
            self._likely = [TokenCandidate(one, found.logprob) for one, found in top.items()]
        # Among those that may stand here, as under a grammar's mask: the engine's default here.
        chosen = top[token].logprob
        forced, self._node = self._node.children[token].forced_prefix()
        self._tokens += [token, *forced]
        self._logprobs += [chosen, *[0.0] * len(forced)]
        if self._node.children:
            return None
        return GenerationResult(self._tokens, self._logprobs, False, self._likely, scored=True)


def _failure(completion: CompletionOutput, wanted: str) -> VLLMServerError:
    """Why there is nothing: of this request alone, or because the engine is being shut down."""
    if completion.finish_reason == "abort":
        return EngineDeadError()
    return EngineGenerateError(f"the engine gave no {wanted}: {completion.finish_reason}")


def _candidates(output: RequestOutput) -> list[Candidate]:
    (completion,) = output.outputs
    if not completion.logprobs:
        raise _failure(completion, "token")
    (top,) = completion.logprobs
    return [Candidate(token, one.logprob) for token, one in top.items()]
