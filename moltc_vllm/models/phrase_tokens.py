"""PhraseTokens: what the tasks' texts always say alike, for a tokenizer that has one token for each.

An answer is then a handful of tokens: a label is one, an interval is one. A model learns, and an
engine takes, as many steps as there is something to decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from moltc_vllm.tasks import Choice, Number, Task
from moltc_vllm.tasks.number import VALUE_MARK

_NUMBER = r"-?[0-9]+\.[0-9]+"
_MARK = f"{VALUE_MARK} is "
_WHOLE = 2000  # whole parts of values up to this are a token with what stands before them


class PhraseTokens(NamedTuple):
    """Texts that are one token each.

    Attributes:
        texts: The tokens.
        patterns: Regular expressions (Oniguruma, without capturing groups) that find them in a
            text, tried in this order before any other rule. What they find and is no token is
            written as bytes.
    """

    texts: tuple[str, ...]
    patterns: tuple[str, ...]


def phrase_tokens_for(tasks: Iterable[Task], sentences: Iterable[str] = ()) -> PhraseTokens:
    """The phrases of some tasks.

    Questions with the end of their line; sentences of labels; intervals; the words between interval
    and value together with the value's first digits; the last digit with its semicolon.

    Args:
        tasks: Whose questions and answers.
        sentences: Further texts, such as names of side effects.
    """
    fixed: dict[str, None] = {}
    numbers: dict[str, None] = {}
    starts: list[str] = []
    for task in tasks:
        if task.question:
            fixed[f"{task.question}\n"] = None
        if isinstance(task.kind, Choice):
            fixed |= dict.fromkeys(label.text for label in task.kind.labels)
        elif isinstance(task.kind, Number):
            starts.append(re.escape(task.kind.start))
            numbers |= dict.fromkeys(_interval_texts(task.kind))
            numbers |= dict.fromkeys(_value_texts(task.kind))
    fixed |= dict.fromkeys(sentences)
    patterns = [
        # A longer text before its own beginning.
        *(re.escape(text) for text in sorted(fixed, key=len, reverse=True)),
        *(f"{start}{_NUMBER} and below {_NUMBER}(?={VALUE_MARK})" for start in starts),
        # Three digits after the point: too many values for a token each.
        rf"{_MARK}-?[0-9]+\.(?=[0-9]{{3}};)",
        rf"{_MARK}-?[0-9]+\.[0-9]*(?=[0-9];)",
        r"[0-9];",
    ]
    last = (f"{digit};" for digit in range(10)) if numbers else ()
    return PhraseTokens((*fixed, *numbers, *last), tuple(patterns))


def _interval_texts(kind: Number) -> Iterator[str]:
    for lower, upper in kind.intervals():
        yield kind.interval_text(lower, upper)


def _value_texts(kind: Number) -> Iterator[str]:
    low, high = kind.bounds
    shown = min(kind.decimals - 1, 1)  # digits after the point within the token
    if kind.decimals > 2:
        shown = 0
    scale = 10**shown
    for step in range(low * scale, min(high, _WHOLE) * scale + 1):
        sign, (whole, part) = "-" if step < 0 else "", divmod(abs(step), scale)
        yield f"{_MARK}{sign}{whole}." + (str(part) if shown else "")
    if low < 0:
        yield f"{_MARK}-0." + ("0" if shown else "")
