"""Confidence computed from the log-probabilities of the generated tokens.

With grammar-constrained decoding, a token's probability is conditional on the tokens the grammar
allows at that position, so the product over an answer is its probability among all valid answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class TokenLogprob(NamedTuple):
    """Generated token and the natural logarithm of its probability."""

    text: str
    logprob: float


def joint_probability(tokens: Sequence[TokenLogprob]) -> float | None:
    """Return the product of the tokens' probabilities; None without tokens or for a NaN."""
    return _exp(sum(token.logprob for token in tokens)) if tokens else None


def mean_probability(tokens: Sequence[TokenLogprob]) -> float | None:
    """Return the geometric mean of the tokens' probabilities, comparable across text lengths."""
    if not tokens:
        return None
    return _exp(sum(token.logprob for token in tokens) / len(tokens))


def tokens_before(text: str, tokens: Sequence[TokenLogprob], mark: str) -> Sequence[TokenLogprob]:
    """Return the tokens of ``text`` that begin before ``mark``.

    Whitespace and case are ignored, because tokenizers drop leading blanks and engines strip the
    text. Tokens of end markers may follow the text. All tokens are returned if they do not
    concatenate to the text (a token may hold only part of a UTF-8 character) or the text does not
    contain ``mark``.
    """
    joined, target = _normalized("".join(token.text for token in tokens)), _normalized(text)
    start, length = joined.find(target), target.find(_normalized(mark))
    if start < 0 or length < 0:
        return tokens
    return tokens[: _count_until(tokens, start + length)]


def tokens_between(
    text: str, tokens: Sequence[TokenLogprob], start: int, end: int
) -> Sequence[TokenLogprob]:
    """Return the tokens that overlap ``text[start:end]``.

    As in `tokens_before`, whitespace and case are ignored, and all tokens are returned if they do
    not concatenate to the text.
    """
    joined, target = _normalized("".join(token.text for token in tokens)), _normalized(text)
    offset = joined.find(target)
    if offset < 0 or (start, end) == (0, len(text)):
        return tokens
    first = offset + len(_normalized(text[:start]))
    last = _count_until(tokens, offset + len(_normalized(text[:end])))
    position = 0
    for count, token in enumerate(tokens):
        position += len(_normalized(token.text))
        if position > first:
            return tokens[count:last]
    return tokens[last:last]


def _count_until(tokens: Sequence[TokenLogprob], length: int) -> int:
    """Return the number of tokens that begin before the given number of characters."""
    position = 0
    for count, token in enumerate(tokens):
        if position >= length:
            return count
        position += len(_normalized(token.text))
    return len(tokens)


def _normalized(text: str) -> str:
    return "".join(text.split()).lower()


def _exp(logarithm: float) -> float | None:
    # Rounding can make a log-probability slightly positive.
    return None if math.isnan(logarithm) else math.exp(min(0.0, logarithm))
