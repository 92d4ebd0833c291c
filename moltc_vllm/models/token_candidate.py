"""A candidate for the next token of an answer, as engines report it."""

from __future__ import annotations

from typing import NamedTuple


class TokenCandidate(NamedTuple):
    """One of the most probable tokens at a position."""

    token_id: int
    logprob: float
