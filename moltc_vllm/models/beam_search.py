"""Beam search over one prompt, without a model: the caller supplies the log-probabilities.

Source: the beam search of transformers 4.28 as the published evaluation runs it: hypotheses are
ranked by the sum of log-probabilities divided by a power of the length, without early stopping.
vLLM's own beam search counts the prompt in that length and has no minimum length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from moltc_vllm.models.token_candidate import TokenCandidate
from moltc_vllm.tasks import GenerationLimits


class Beam(NamedTuple):
    """An unfinished answer."""

    tokens: tuple[int, ...]
    logprob: float  # sum of `logprobs`
    logprobs: tuple[float, ...]


class Hypothesis(NamedTuple):
    """A finished answer, without its stop token."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float
    stopped: bool  # True: ended by the stop token; False: by the maximum length


class BeamSearch:
    """Keep the best unfinished answers until no better answer is possible.

    Args:
        width: Number of beams.
        limits: Minimum and maximum length; ``length_offset`` tokens in front of the answer count
            in the lengths that scores are divided by.
        stop: Id of the token that ends an answer; ``None``: answers end at the maximum length.
        length_penalty: Exponent of the length that the sum of log-probabilities is divided by.

    Attributes:
        open: Unfinished beams, best first.
        hypotheses: Best finished answers, at most ``width``, in no order; see `best`.
        done: Whether the search is over.
    """

    def __init__(
        self, width: int, limits: GenerationLimits, stop: int | None, length_penalty: float = 1.0
    ) -> None:
        if width < 1:
            raise ValueError(f"beam search needs a width of at least 1, got {width}")
        self.width = width
        self.limits = limits
        self.stop = stop
        self.length_penalty = length_penalty
        self.open = [Beam((), 0.0, ())]
        self.hypotheses: list[Hypothesis] = []
        self.done = limits.max_new_tokens < 1

    @property
    def num_candidates(self) -> int:
        """Number of candidates that `advance` needs for each beam."""
        # Each beam can have one stop token, which may not be allowed yet.
        return 2 * self.width + 1

    def advance(self, candidates: Sequence[Sequence[TokenCandidate]]) -> list[int]:
        """Extend every open beam by one token.

        Args:
            candidates: Most probable next tokens of each open beam: `num_candidates` of them, or
                the whole vocabulary where that is smaller.

        Returns:
            Index of the previous beam that each new open beam extends; empty when the search is
            done.
        """
        length = len(self.open[0].tokens)
        ranked = self._rank(candidates, stop_allowed=length >= self.limits.min_new_tokens)
        extended: list[tuple[int, Beam]] = []
        for rank, (total, parent, (token, logprob)) in enumerate(ranked):
            beam = self.open[parent]
            if token == self.stop:
                if rank < self.width:
                    self._add_hypothesis(beam._replace(logprob=total), stopped=True)
                continue
            new = Beam((*beam.tokens, token), total, (*beam.logprobs, logprob))
            extended.append((parent, new))
            if len(extended) == self.width:
                break
        self.open = [beam for _, beam in extended]
        best_total = ranked[0][0] if ranked else float("-inf")
        if not extended or self._cannot_improve(best_total, length + 1):
            self.done = True
        elif length + 1 >= self.limits.max_new_tokens:
            for beam in self.open:
                self._add_hypothesis(beam, stopped=False)
            self.done = True
        return [] if self.done else [parent for parent, _ in extended]

    def best(self) -> list[Hypothesis]:
        """Return the finished answers, best first."""
        return sorted(self.hypotheses, key=lambda hypothesis: -hypothesis.score)

    def _rank(
        self, candidates: Sequence[Sequence[TokenCandidate]], stop_allowed: bool
    ) -> list[tuple[float, int, TokenCandidate]]:
        """Return the best ``2 * width`` extensions as total log-probability, parent, candidate."""
        extensions = (
            (beam.logprob + candidate.logprob, parent, candidate)
            for parent, beam in enumerate(self.open)
            for candidate in candidates[parent]
            if candidate.token_id != self.stop or stop_allowed
        )
        # Sort by the total alone: ties keep the order of beams and candidates.
        return sorted(extensions, key=lambda extension: -extension[0])[: 2 * self.width]

    def _score(self, total: float, length: int) -> float:
        return float(total / max(length + self.limits.length_offset, 1) ** self.length_penalty)

    def _add_hypothesis(self, beam: Beam, stopped: bool) -> None:
        score = self._score(beam.logprob, len(beam.tokens))
        self.hypotheses.append(Hypothesis(beam.tokens, beam.logprobs, score, stopped))
        if len(self.hypotheses) > self.width:
            self.hypotheses.remove(min(self.hypotheses, key=lambda hypothesis: hypothesis.score))

    def _cannot_improve(self, total: float, length: int) -> bool:
        """Return whether the worst hypothesis scores at least as high as the best open beam."""
        if len(self.hypotheses) < self.width:
            return False
        worst = min(hypothesis.score for hypothesis in self.hypotheses)
        return worst >= self._score(total, length)
