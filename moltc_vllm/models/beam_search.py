"""Beam search over one prompt: the bookkeeping, whoever computes the log-probabilities.

Source: the beam search of transformers 4.28 as the published evaluation uses it (sums of
log-probabilities over a power of the length, no early stopping). vLLM's own beam search ranks by
another length, the prompt's included, and knows no least length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from moltc_vllm.tasks import Limits


class Candidate(NamedTuple):
    """A possible next token of a beam."""

    token: int
    logprob: float


class Beam(NamedTuple):
    """The beginning of an answer: its tokens and the sum of their log-probabilities."""

    tokens: tuple[int, ...]
    logprob: float
    logprobs: tuple[float, ...]


class Hypothesis(NamedTuple):
    """A whole answer, without its stop token."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float
    stopped: bool  # by the stop token, and not by the greatest length


class BeamSearch:
    """Keeps the best beginnings of an answer until no better answer can come.

    Args:
        width: How many beginnings are kept.
        limits: Least and greatest length; ``counted_before`` tokens in front of the answer count
            in the scores' lengths.
        stop: Token that ends an answer; ``None``: only the length does.
        length_penalty: Power of the length that sums are divided by.
    """

    def __init__(
        self, width: int, limits: Limits, stop: int | None, length_penalty: float = 1.0
    ) -> None:
        if width < 1:
            raise ValueError(f"{width} beams")
        self.width = width
        self.limits = limits
        self.stop = stop
        self.length_penalty = length_penalty
        self.open = [Beam((), 0.0, ())]
        self.hypotheses: list[Hypothesis] = []
        self.done = limits.max_new_tokens < 1

    @property
    def wanted(self) -> int:
        """How many of each beam's likeliest tokens `advance` needs to know."""
        return 2 * self.width + 1  # one of them may be the stop token, and not allowed yet

    def advance(self, candidates: Sequence[Sequence[Candidate]]) -> list[int]:
        """Go one token further.

        Args:
            candidates: The likeliest next tokens of each open beam, at least `wanted` of them
                where the vocabulary has that many.

        Returns:
            For each new open beam the number of the one it goes on from; empty when done.
        """
        length = len(self.open[0].tokens)
        stop_allowed = length >= self.limits.min_new_tokens
        ranked = sorted(
            (
                (beam.logprob + candidate.logprob, number, candidate)
                for number, beam in enumerate(self.open)
                for candidate in candidates[number]
                if candidate.token != self.stop or stop_allowed
            ),
            key=lambda one: -one[0],
        )[: 2 * self.width]
        following: list[tuple[int, Beam]] = []
        for rank, (total, number, (token, logprob)) in enumerate(ranked):
            beam = self.open[number]
            if token == self.stop:
                if rank < self.width:
                    self._keep(beam._replace(logprob=total), stopped=True)
                continue
            new = Beam((*beam.tokens, token), total, (*beam.logprobs, logprob))
            following.append((number, new))
            if len(following) == self.width:
                break
        self.open = [beam for _, beam in following]
        best = ranked[0][0] if ranked else float("-inf")
        if not following or self._nothing_better(best, length + 1):
            self.done = True
        elif length + 1 >= self.limits.max_new_tokens:
            for beam in self.open:
                self._keep(beam, stopped=False)
            self.done = True
        return [] if self.done else [number for number, _ in following]

    def best(self) -> list[Hypothesis]:
        """The answers found, best first."""
        return sorted(self.hypotheses, key=lambda one: -one.score)

    def _scored(self, total: float, length: int) -> float:
        return float(total / max(length + self.limits.counted_before, 1) ** self.length_penalty)

    def _keep(self, beam: Beam, stopped: bool) -> None:
        score = self._scored(beam.logprob, len(beam.tokens))
        self.hypotheses.append(Hypothesis(beam.tokens, beam.logprobs, score, stopped))
        if len(self.hypotheses) > self.width:
            self.hypotheses.remove(min(self.hypotheses, key=lambda one: one.score))

    def _nothing_better(self, total: float, length: int) -> bool:
        """Whether the worst answer is at least as good as the best beam is now."""
        if len(self.hypotheses) < self.width:
            return False
        worst = min(one.score for one in self.hypotheses)
        return worst >= self._scored(total, length)
