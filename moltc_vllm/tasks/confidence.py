"""Confidence from the log-probabilities of the generated tokens.

Under an engine's grammar mask a token's probability is conditional on the tokens that are allowed
there, so the product over an answer is the probability of that answer among all answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class TokenLogprob(NamedTuple):
    """A generated token and the natural logarithm of its probability."""

    text: str
    logprob: float


def probability(tokens: Sequence[TokenLogprob]) -> float | None:
    """The probability of all tokens together; ``None`` if there are none or one is not known."""
    return _exp(sum(token.logprob for token in tokens)) if tokens else None


def mean_probability(tokens: Sequence[TokenLogprob]) -> float | None:
    """Geometric mean of the tokens' probabilities: comparable between texts of any length."""
    if not tokens:
        return None
    return _exp(sum(token.logprob for token in tokens) / len(tokens))


def tokens_before(text: str, tokens: Sequence[TokenLogprob], mark: str) -> Sequence[TokenLogprob]:
    """The tokens of ``text`` that begin before ``mark``.

    Blanks and case do not count: tokenizers drop leading blanks, engines strip the text. Tokens of
    end markers after the text do no harm. All tokens are returned when they do not add up to the
    text (pieces of a character decode to nothing readable) or the text has no mark.
    """
    joined, wanted = _squeeze("".join(token.text for token in tokens)), _squeeze(text)
    start, length = joined.find(wanted), wanted.find(_squeeze(mark))
    if start < 0 or length < 0:
        return tokens
    return tokens[: _count_until(tokens, start + length)]


def tokens_between(
    text: str, tokens: Sequence[TokenLogprob], start: int, end: int
) -> Sequence[TokenLogprob]:
    """The tokens that make ``text[start:end]``, those that reach over an end included.

    As with `tokens_before`, blanks and case do not count, and all tokens are returned when they do
    not add up to the text.
    """
    joined, wanted = _squeeze("".join(token.text for token in tokens)), _squeeze(text)
    offset = joined.find(wanted)
    if offset < 0 or (start, end) == (0, len(text)):
        return tokens
    first = offset + len(_squeeze(text[:start]))
    last = _count_until(tokens, offset + len(_squeeze(text[:end])))
    position = 0
    for count, token in enumerate(tokens):
        position += len(_squeeze(token.text))
        if position > first:
            return tokens[count:last]
    return tokens[last:last]


def _count_until(tokens: Sequence[TokenLogprob], length: int) -> int:
    """How many tokens begin before that many characters."""
    position = 0
    for count, token in enumerate(tokens):
        if position >= length:
            return count
        position += len(_squeeze(token.text))
    return len(tokens)


def _squeeze(text: str) -> str:
    return "".join(text.split()).lower()


def _exp(logarithm: float) -> float | None:
    # Rounding can leave a log-probability a little above zero.
    return None if math.isnan(logarithm) else math.exp(min(0.0, logarithm))
