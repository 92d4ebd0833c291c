"""Decoding in plain torch: a cache of keys and values, a step at a time.

Written out instead of `transformers.generate`, because two things the published model needs are not
in there: a first token predicted from a pad column (`PromptStyle`, REFERENCE 8.1), and the beam
search of an older release.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from moltc_vllm.models.beam_search import BeamSearch, Candidate, Hypothesis
from moltc_vllm.tasks import Limits

Processor = Callable[[Tensor, Tensor], Tensor]
"""``(new tokens [B, n], logits [B, V]) -> logits``: what a grammar does to them."""


class Decoder:
    """Prompts that have been read, and are being continued.

    Args:
        language_model: A causal language model of transformers.
        embeds: Prompt embeddings, ``[B, T, hidden]``.
        mask: ``[B, T]``, 0 on padding, on either side. Where the last column is padding, the first
            token is predicted from there: the pad sees the prompt, and nobody sees the pad.
        forbidden: A token that is never an answer.
    """

    def __init__(
        self, language_model: Any, embeds: Tensor, mask: Tensor, forbidden: int | None = None
    ) -> None:
        self.model = language_model
        self.mask = mask
        self.forbidden = forbidden
        self.cache: Any = None
        forward = inspect.signature(language_model.forward).parameters
        self._takes_positions = "position_ids" in forward
        # OPT's own rule: tokens are counted without padding, and padding is at position -1.
        self.logits = self._run(mask.cumsum(1) * mask - 1, inputs_embeds=embeds)

    def step(self, tokens: Tensor, parents: Tensor | None = None) -> Tensor:
        """Append a token to each row and give the next logits, ``[B', V]``.

        Args:
            tokens: ``[B']``.
            parents: Row that each goes on from, ``[B']``; default: all rows, in order.
        """
        if parents is not None:
            self.cache.batch_select_indices(parents)
            self.mask = self.mask[parents]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], 1)
        positions = self.mask.sum(1, keepdim=True) - 1
        self.logits = self._run(positions, input_ids=tokens[:, None])
        return self.logits

    def _run(self, positions: Tensor, **inputs: Tensor) -> Tensor:
        if self._takes_positions:
            inputs["position_ids"] = positions
        out = self.model(
            **inputs,
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = out.past_key_values
        logits: Tensor = out.logits[:, -1].float()
        if self.forbidden is not None:
            logits[:, self.forbidden] = float("-inf")
        return logits


class Greedy(NamedTuple):
    """The likeliest continuation of each row."""

    token_ids: list[list[int]]  # without the stop token
    logprobs: list[list[float]]
    first_logprobs: Tensor  # [B, V]


def greedy(
    decoder: Decoder, limits: Limits, stop: int | None, processors: Sequence[Processor] = ()
) -> Greedy:
    """Continue every row with its likeliest tokens.

    Log-probabilities are among the tokens that may stand in a place: under the processors, and
    without the stop token where it is forbidden. vLLM's ``processed_logprobs`` are the same.
    """
    rows = len(decoder.mask)
    chosen = torch.empty(rows, 0, dtype=torch.long, device=decoder.mask.device)
    of_chosen = torch.empty(rows, 0, device=decoder.mask.device)
    finished = torch.zeros(rows, dtype=torch.bool, device=decoder.mask.device)
    first = None
    logits = decoder.logits
    for length in range(limits.max_new_tokens):
        for processor in processors:
            logits = processor(chosen, logits)
        if stop is not None and length < limits.min_new_tokens:
            logits = logits.clone()
            logits[:, stop] = float("-inf")
        logprobs = logits.log_softmax(-1)
        first = logprobs if first is None else first
        token = logprobs.argmax(-1)
        chosen = torch.cat([chosen, token[:, None]], 1)
        of_chosen = torch.cat([of_chosen, logprobs.gather(1, token[:, None])], 1)
        if stop is not None:
            finished |= token == stop
            if bool(finished.all()):
                break
        if length + 1 < limits.max_new_tokens:
            logits = decoder.step(token)
    assert first is not None
    ids = [_until(row, stop) for row in chosen.tolist()]
    values = [row[: len(ids[i])] for i, row in enumerate(of_chosen.tolist())]
    return Greedy(ids, values, first)


def beam_search(
    decoder: Decoder, width: int, limits: Limits, stop: int | None
) -> list[list[Hypothesis]]:
    """Search every row's answer with several beams; each row's answers come best first."""
    searches = [BeamSearch(width, limits, stop) for _ in range(len(decoder.mask))]
    rows = list(range(len(searches)))  # of the decoder: whose beam each is, in order
    logits = decoder.logits
    while True:
        wanted = min(searches[0].wanted, logits.shape[-1])
        values, tokens = logits.log_softmax(-1).topk(wanted)
        candidates = [
            [Candidate(token, logprob) for token, logprob in zip(*row, strict=True)]
            for row in zip(tokens.tolist(), values.tolist(), strict=True)
        ]
        parents: list[int] = []
        owners: list[int] = []
        for number, search in enumerate(searches):
            own = [place for place, owner in enumerate(rows) if owner == number]
            if not own:
                continue
            following = search.advance([candidates[place] for place in own])
            parents += [own[beam] for beam in following]
            owners += [number] * len(following)
        if not owners:
            return [search.best() for search in searches]
        last = [
            beam.tokens[-1] for number in dict.fromkeys(owners) for beam in searches[number].open
        ]
        rows = owners
        device = decoder.mask.device
        logits = decoder.step(
            torch.tensor(last, device=device), torch.tensor(parents, device=device)
        )


def _until(ids: list[int], stop: int | None) -> list[int]:
    return ids[: ids.index(stop)] if stop is not None and stop in ids else ids
