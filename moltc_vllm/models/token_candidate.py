"""Candidates for the next token of an answer, as engines report them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class TokenCandidate(NamedTuple):
    """One of the most probable tokens at a position."""

    token_id: int
    logprob: float


class TokenCandidates(NamedTuple):
    """Most probable tokens at a position, as columns, because there may be hundreds.

    A token may occur twice; both times it has the same log-probability.
    """

    token_ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
