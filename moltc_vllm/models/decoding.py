"""Greedy decoding and beam search in plain torch, one token at a time with a KV cache.

`transformers.generate` cannot replace this module, because it lacks two features that the published
model needs: a first token predicted from a pad column, and the beam search of
transformers 4.28. ``docs/concepts/published-model.md`` describes both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from moltc_vllm.models.beam_search import BeamSearch, Hypothesis
from moltc_vllm.models.token_candidate import TokenCandidate
from moltc_vllm.tasks import GenerationLimits

LogitsProcessor = Callable[[Tensor, Tensor], Tensor]
"""Function ``(new tokens [B, n], logits [B, V]) -> logits [B, V]``, such as a grammar's mask."""


class IncrementalDecoder:
    """Decoder of a batch of prompts, one token per row and step.

    Args:
        language_model: Causal language model of transformers.
        inputs_embeds: Prompt embeddings, ``[B, T, H]``.
        attention_mask: ``[B, T]``, 0 on padding, which may be on either side. Where the last column
            is padding, the first token is predicted from it: the pad attends to the prompt, and
            no later token attends to the pad.
        suppressed_token: Id of a token that is never generated; default: none is suppressed.

    Attributes:
        logits: Next-token logits of the last step, ``[B, V]`` float32.
    """

    def __init__(
        self,
        language_model: Any,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        suppressed_token: int | None = None,
    ) -> None:
        self.model = language_model
        self.attention_mask = attention_mask
        self.suppressed_token = suppressed_token
        self.cache: Any = None
        parameters = inspect.signature(language_model.forward).parameters
        self._takes_positions = "position_ids" in parameters
        # OPT's own rule: positions count tokens without padding, and padding is at position -1.
        positions = attention_mask.cumsum(1) * attention_mask - 1
        self.logits = self._forward(positions, inputs_embeds=inputs_embeds)

    def step(self, tokens: Tensor, parents: Tensor | None = None) -> Tensor:
        """Append a token to each row and compute the next logits.

        Args:
            tokens: ``[B']`` token ids.
            parents: ``[B']`` index of the row that each new row continues; default: all rows in
                order.

        Returns:
            ``[B', V]`` float32.
        """
        if parents is not None:
            self.cache.batch_select_indices(parents)
            self.attention_mask = self.attention_mask[parents]
        mask = self.attention_mask
        self.attention_mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        positions = self.attention_mask.sum(1, keepdim=True) - 1
        self.logits = self._forward(positions, input_ids=tokens[:, None])
        return self.logits

    def _forward(self, positions: Tensor, **inputs: Tensor) -> Tensor:
        if self._takes_positions:
            inputs["position_ids"] = positions
        out = self.model(
            **inputs,
            attention_mask=self.attention_mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = out.past_key_values
        logits: Tensor = out.logits[:, -1].float()
        if self.suppressed_token is not None:
            logits[:, self.suppressed_token] = float("-inf")
        return logits


class GreedyOutput(NamedTuple):
    """Most probable continuation of each row, without the stop token."""

    token_ids: list[list[int]]
    logprobs: list[list[float]]
    first_logprobs: Tensor  # [B, V] log-probabilities of the first token


def greedy_search(
    decoder: IncrementalDecoder,
    limits: GenerationLimits,
    stop: int | None,
    processors: Sequence[LogitsProcessor] = (),
) -> GreedyOutput:
    """Continue every row with its most probable tokens.

    Log-probabilities are normalized over the tokens allowed at each position, that is after the
    processors and without the stop token where the minimum length forbids it. vLLM's
    ``processed_logprobs`` are the same.

    Args:
        decoder: Decoder that has processed the prompts.
        limits: Minimum and maximum number of new tokens.
        stop: Id of the token that ends an answer; ``None``: answers end at the maximum length.
        processors: Functions that mask logits, applied in order.
    """
    rows, device = len(decoder.attention_mask), decoder.attention_mask.device
    token_ids = torch.empty(rows, 0, dtype=torch.long, device=device)  # [B, n]
    token_logprobs = torch.empty(rows, 0, device=device)  # [B, n]
    finished = torch.zeros(rows, dtype=torch.bool, device=device)
    first_logprobs = None
    logits = decoder.logits
    for length in range(limits.max_new_tokens):
        for processor in processors:
            logits = processor(token_ids, logits)
        if stop is not None and length < limits.min_new_tokens:
            logits = logits.clone()
            logits[:, stop] = float("-inf")
        logprobs = logits.log_softmax(-1)  # [B, V]
        first_logprobs = logprobs if first_logprobs is None else first_logprobs
        token = logprobs.argmax(-1)  # [B]
        token_ids = torch.cat([token_ids, token[:, None]], 1)
        token_logprobs = torch.cat([token_logprobs, logprobs.gather(1, token[:, None])], 1)
        if stop is not None:
            finished |= token == stop
            if bool(finished.all()):
                break
        if length + 1 < limits.max_new_tokens:
            logits = decoder.step(token)
    assert first_logprobs is not None
    answers = [_before_stop(row, stop) for row in token_ids.tolist()]
    answer_logprobs = [
        row[: len(answer)] for row, answer in zip(token_logprobs.tolist(), answers, strict=True)
    ]
    return GreedyOutput(answers, answer_logprobs, first_logprobs)


def beam_search(
    decoder: IncrementalDecoder, width: int, limits: GenerationLimits, stop: int | None
) -> list[list[Hypothesis]]:
    """Search for each row's answers with several beams.

    Args:
        decoder: Decoder that has processed the prompts.
        width: Number of beams per row.
        limits: Minimum and maximum length of an answer.
        stop: Id of the token that ends an answer; ``None``: answers end at the maximum length.

    Returns:
        Up to ``width`` answers of each row, best first.
    """
    searches = [BeamSearch(width, limits, stop) for _ in range(len(decoder.attention_mask))]
    owners = list(range(len(searches)))  # the search that each row of the decoder belongs to
    device = decoder.attention_mask.device
    logits = decoder.logits
    while True:
        candidates = _top_candidates(logits, searches[0].num_candidates)
        parents: list[int] = []
        next_owners: list[int] = []
        for index, search in enumerate(searches):
            rows = [row for row, owner in enumerate(owners) if owner == index]
            if not rows:
                continue
            beams = search.advance([candidates[row] for row in rows])
            parents += [rows[beam] for beam in beams]
            next_owners += [index] * len(beams)
        if not next_owners:
            return [search.best() for search in searches]
        owners = next_owners
        last_tokens = [
            beam.tokens[-1] for index in dict.fromkeys(owners) for beam in searches[index].open
        ]
        logits = decoder.step(
            torch.tensor(last_tokens, device=device), torch.tensor(parents, device=device)
        )


def _top_candidates(logits: Tensor, count: int) -> list[list[TokenCandidate]]:
    """Return the ``count`` most probable tokens of each row of ``logits [B, V]``."""
    values, tokens = logits.log_softmax(-1).topk(min(count, logits.shape[-1]))
    return [
        [TokenCandidate(token, logprob) for token, logprob in zip(*row, strict=True)]
        for row in zip(tokens.tolist(), values.tolist(), strict=True)
    ]


def _before_stop(token_ids: list[int], stop: int | None) -> list[int]:
    return token_ids[: token_ids.index(stop)] if stop in token_ids else token_ids
