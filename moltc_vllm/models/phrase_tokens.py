"""Phrases of the tasks that a tokenizer stores as one token each.

Labels, intervals and questions are fixed texts. With a token for each of them an answer is a
handful of tokens, so that neither training nor decoding spends steps on text that is not a choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from moltc_vllm.tasks import Choice, Number, Task
from moltc_vllm.tasks.number import VALUE_MARK

_NUMBER = r"-?[0-9]+\.[0-9]+"
_VALUE_PREFIX = f"{VALUE_MARK} is "
_MAX_VALUE = 2000  # larger values have no token for their leading digits


class PhraseVocabulary(NamedTuple):
    """Texts that become one token each, and the patterns that split them from other text.

    Attributes:
        texts: Texts of the tokens.
        patterns: Regular expressions in Oniguruma syntax without capturing groups. The tokenizer
            tries them in this order before its other rules; a match that is not among ``texts`` is
            tokenized as bytes.
    """

    texts: tuple[str, ...]
    patterns: tuple[str, ...]


def phrase_vocabulary(tasks: Iterable[Task], sentences: Iterable[str] = ()) -> PhraseVocabulary:
    """Collect the phrases of some tasks.

    Phrases are the questions with their line ends, the sentences of labels, the intervals, the
    words between interval and value joined with the leading digits of the value, and the last digit
    joined with its semicolon.

    Args:
        tasks: Tasks whose questions and answers are included.
        sentences: Further texts that become one token each, such as names of side effects.
    """
    fixed: dict[str, None] = {}
    numeric: dict[str, None] = {}
    number_prefixes: list[str] = []
    for task in tasks:
        if task.question:
            fixed[f"{task.question}\n"] = None
        if isinstance(task.kind, Choice):
            fixed |= dict.fromkeys(label.text for label in task.kind.labels)
        elif isinstance(task.kind, Number):
            number_prefixes.append(re.escape(task.kind.answer_prefix))
            numeric |= dict.fromkeys(_interval_texts(task.kind))
            numeric |= dict.fromkeys(_leading_digit_texts(task.kind))
    fixed |= dict.fromkeys(sentences)
    patterns = [
        # Longer texts come first, because a text may begin with a shorter one.
        *(re.escape(text) for text in sorted(fixed, key=len, reverse=True)),
        *(f"{prefix}{_NUMBER} and below {_NUMBER}(?={VALUE_MARK})" for prefix in number_prefixes),
        # Values with three decimals are too many for a token each: the token ends at the point.
        rf"{_VALUE_PREFIX}-?[0-9]+\.(?=[0-9]{{3}};)",
        rf"{_VALUE_PREFIX}-?[0-9]+\.[0-9]*(?=[0-9];)",
        r"[0-9];",
    ]
    last_digits = (f"{digit};" for digit in range(10)) if numeric else ()
    return PhraseVocabulary((*fixed, *numeric, *last_digits), tuple(patterns))


def _interval_texts(kind: Number) -> Iterator[str]:
    for lower, upper in kind.intervals():
        yield kind.interval_text(lower, upper)


def _leading_digit_texts(kind: Number) -> Iterator[str]:
    """Yield the value prefix with every possible sequence of leading digits."""
    low, high = kind.bounds
    # Decimals within the token; the remaining ones are tokens of their own.
    decimals = 0 if kind.decimals > 2 else min(kind.decimals - 1, 1)
    factor = 10**decimals
    for scaled in range(low * factor, min(high, _MAX_VALUE) * factor + 1):
        sign, (whole, fraction) = "-" if scaled < 0 else "", divmod(abs(scaled), factor)
        yield f"{_VALUE_PREFIX}{sign}{whole}." + (str(fraction) if decimals else "")
    if low < 0:
        yield f"{_VALUE_PREFIX}-0." + ("0" if decimals else "")
