"""Decoding strategies: the engine requests of one pair, and the generated tokens in their outputs.

A strategy does not run the engine. The caller submits `DecodingStrategy.requests` and passes their
outputs to `DecodingStrategy.step` until it returns a result; `VllmEngine` does so synchronously,
the server's `InteractionsService` with coroutines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from vllm.exceptions import VLLMServerError
from vllm.logprobs import FlatLogprobs
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from moltc_vllm.models.answer_trie import TrieNode
from moltc_vllm.models.beam_search import BeamSearch
from moltc_vllm.models.token_candidate import TokenCandidate, TokenCandidates


class GenerationResult(NamedTuple):
    """The generated tokens of one pair.

    Attributes:
        token_ids: Tokens of the answer, without the stop token.
        logprobs: Log-probability of each token.
        truncated: Whether the answer reached its maximum length.
        first_token_candidates: Most probable first tokens; empty for beam search.
        scored: Whether the tokens are a path through the answer trie, see
            `GenerationSettings.score`.
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    truncated: bool
    first_token_candidates: TokenCandidates = TokenCandidates()
    scored: bool = False


class DecodingStrategy(Protocol):
    """Generation of one pair's answer in one or more rounds of engine requests."""

    def requests(self) -> list[tuple[Any, SamplingParams]]:
        """Return the engine inputs and sampling parameters of the next round of requests."""
        ...

    def step(self, outputs: Sequence[RequestOutput]) -> GenerationResult | None:
        """Process the outputs of one round.

        Args:
            outputs: Finished output of each request of `requests`, in the same order.

        Returns:
            The result, or ``None`` if another round is needed.

        Raises:
            EngineGenerateError: If one of the requests failed.
            EngineDeadError: If the engine has shut down.
        """
        ...


class GreedyDecoding:
    """Most probable token at each position; one request generates the whole answer."""

    def __init__(self, inputs: Any, params: SamplingParams) -> None:
        self._request = (inputs, params)

    def requests(self) -> list[tuple[Any, SamplingParams]]:
        """Return the only request."""
        return [self._request]

    def step(self, outputs: Sequence[RequestOutput]) -> GenerationResult:
        """Return the generated tokens of the only output."""
        (completion,) = outputs[0].outputs
        if completion.finish_reason not in ("stop", "length"):
            raise _failure(completion, "answer")
        token_ids = list(completion.token_ids)
        reported = _flat_logprobs(completion)
        # The chosen token comes first at each position.
        logprobs = [reported.logprobs[start] for start in reported.start_indices]
        first_token_candidates = _first_candidates(reported)
        if completion.finish_reason == "stop":
            token_ids, logprobs = token_ids[:-1], logprobs[: len(token_ids) - 1]
        return GenerationResult(
            token_ids, logprobs, completion.finish_reason == "length", first_token_candidates
        )


class BeamDecoding:
    """Beam search; a round is one request of a single token for each beam.

    vLLM's own beam search works in the same way: shared prefixes of beams are in the prefix cache.
    Only the ranking differs, see `moltc_vllm.models.beam_search`.
    """

    def __init__(self, inputs: Any, search: BeamSearch) -> None:
        self._inputs = inputs
        self._search = search
        self._params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            logprobs=search.num_candidates,
            ignore_eos=True,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def requests(self) -> list[tuple[Any, SamplingParams]]:
        """Return a request of one token for each open beam."""
        prompt = list(self._inputs["prompt_token_ids"])
        return [
            ({**self._inputs, "prompt_token_ids": [*prompt, *beam.tokens]}, self._params)
            for beam in self._search.open
        ]

    def step(self, outputs: Sequence[RequestOutput]) -> GenerationResult | None:
        """Extend the beams; return the best answer when no better one is possible."""
        self._search.advance([_beam_candidates(output) for output in outputs])
        if not self._search.done:
            return None
        best = self._search.best()[0]
        return GenerationResult(best.tokens, best.logprobs, not best.stopped)


class ForcedChoiceDecoding:
    """Descent through the answer trie; the model chooses a child at each branching node.

    The answer equals the one that is generated under a grammar, because a token without an
    alternative has probability 1 under the grammar's mask. Such forced tokens are not generated
    here but appended to the prompt of the next request, whose other tokens are in the prefix cache.

    Args:
        inputs: Rendered prompt.
        trie: Root of the task's answer trie.
        num_candidates: Number of the most probable first tokens to report.
    """

    def __init__(self, inputs: Any, trie: TrieNode, num_candidates: int) -> None:
        self._inputs = inputs
        self._num_candidates = num_candidates
        self._token_ids, self._node = trie.forced_prefix()
        self._logprobs = [0.0] * len(self._token_ids)
        self._first_token_candidates = TokenCandidates()

    def requests(self) -> list[tuple[Any, SamplingParams]]:
        """Return a request of one token among the children of the current node."""
        params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            logprobs=self._num_candidates,
            flat_logprobs=True,
            allowed_token_ids=list(self._node.children),
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            # These parameters are not shared with another request, and vLLM's deep copy of
            # hundreds of allowed tokens is slow.
            skip_clone=True,
        )
        prompt = [*self._inputs["prompt_token_ids"], *self._token_ids]
        return [({**self._inputs, "prompt_token_ids": prompt}, params)]

    def step(self, outputs: Sequence[RequestOutput]) -> GenerationResult | None:
        """Follow the chosen branch; return the result at a leaf."""
        candidates = _single_token(outputs[0])
        token_id = candidates.token_ids[0]
        if not self._first_token_candidates.token_ids:
            self._first_token_candidates = candidates
        # With our default of vLLM's `logprobs_mode`, the probability is relative to the allowed
        # tokens, as it is under a grammar's mask.
        logprob = candidates.logprobs[0]
        forced, self._node = self._node.children[token_id].forced_prefix()
        self._token_ids += [token_id, *forced]
        self._logprobs += [logprob, *[0.0] * len(forced)]
        if self._node.children:
            return None
        return GenerationResult(
            self._token_ids, self._logprobs, False, self._first_token_candidates, scored=True
        )


def _flat_logprobs(completion: CompletionOutput) -> FlatLogprobs:
    assert isinstance(completion.logprobs, FlatLogprobs), "requests set flat_logprobs"
    return completion.logprobs


def _first_candidates(reported: FlatLogprobs) -> TokenCandidates:
    """Return the candidates of the first position; the chosen token comes first."""
    stop = reported.end_indices[0]
    return TokenCandidates(reported.token_ids[:stop], reported.logprobs[:stop])


def _single_token(output: RequestOutput) -> TokenCandidates:
    """Return the candidates of an output of one token; the chosen token comes first."""
    (completion,) = output.outputs
    if not completion.logprobs:
        raise _failure(completion, "token")
    return _first_candidates(_flat_logprobs(completion))


def _beam_candidates(output: RequestOutput) -> list[TokenCandidate]:
    """Return the distinct candidates of an output of one token, the most probable ones first."""
    candidates = dict(zip(*_single_token(output), strict=True))
    return [TokenCandidate(*item) for item in candidates.items()]


def _failure(completion: CompletionOutput, missing: str) -> VLLMServerError:
    """Build the error for an output without tokens: a failed request or a dead engine."""
    if completion.finish_reason == "abort":
        return EngineDeadError()
    return EngineGenerateError(f"the engine returned no {missing}: {completion.finish_reason}")
