"""Where the possible answers of a task part: all that a model has to decide."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from moltc_vllm.models.interval_tokens import interval_vocabulary
from moltc_vllm.tasks import Choice, Number, Task
from moltc_vllm.tasks.number import VALUE_MARK

MOST_VALUES = 1_000
"""Of one interval; where there are more, a number is generated as any text is."""


class TrieNode:
    """A place in a tree of answers; without ways on, an answer ends there.

    Args:
        later: Gives the answers that go on from here, when somebody comes by.
    """

    __slots__ = ("_later", "_ways")

    def __init__(self, later: Callable[[], list[list[int]]] | None = None) -> None:
        self._ways: dict[int, TrieNode] = {}
        self._later = later

    @property
    def children(self) -> dict[int, TrieNode]:
        """What follows each token that may stand here."""
        if self._later is not None:
            answers, self._later = self._later(), None
            for answer in answers:
                self.add(answer)
        return self._ways

    def add(self, tokens: list[int], end: TrieNode | None = None) -> None:
        """Add an answer that goes on from here, and what it ends in."""
        *before, last = tokens
        place = self
        for token in before:
            place = place.children.setdefault(token, TrieNode())
        place.children.setdefault(last, end or TrieNode())

    def forced_prefix(self) -> tuple[list[int], TrieNode]:
        """The tokens that have to follow, and the next place where there is something to decide."""
        tokens, place = [], self
        while len(place.children) == 1:
            ((token, place),) = place.children.items()
            tokens.append(token)
        return tokens, place


def answer_trie(task: Task, tokenizer: Any) -> TrieNode | None:
    """All answers of a task as tokens, as the tokenizer writes them.

    Labels as whole sentences. Numbers by their interval, where each is one token: the interval and
    the mean of all of them are the answer, and the digits after it add nothing to them. Elsewhere
    numbers as whole sentences, of which only digits are left to decide. ``None`` for other tasks,
    and for numbers of which there are too many.
    """
    return _tree(task, tokenizer) if isinstance(task.kind, Choice | Number) else None


@lru_cache(maxsize=64)
def _tree(task: Task, tokenizer: Any) -> TrieNode | None:
    root = TrieNode()
    if isinstance(task.kind, Choice):
        for label in task.kind.labels:
            # An end, as one label's sentence may begin with another one's.
            tokens = tokenizer.encode(label.text, add_special_tokens=False)
            root.add([*tokens, tokenizer.eos_token_id])
        return root
    scale = interval_vocabulary(task, tokenizer)
    if scale is None:
        return _sentences(task.kind, tokenizer)
    for token in scale.tokens.tolist():
        root.add([token])
    return root


def _sentences(kind: Any, tokenizer: Any) -> TrieNode | None:
    """All intervals, and after each of them the values that are in it."""
    root = TrieNode()
    for lower, upper in kind.intervals():
        count = kind.count(lower, upper)
        if count > MOST_VALUES:
            return None
        before = _encoded(kind.interval_text(lower, upper) + VALUE_MARK, tokenizer)
        first = _encoded(next(kind.texts(lower, upper)), tokenizer)
        if first[: len(before)] != before:  # its words are not cut between interval and value
            return None
        root.add(before, TrieNode(partial(_values, kind, tokenizer, lower, upper, len(before))))
    return root


def _values(kind: Any, tokenizer: Any, lower: float, upper: float, start: int) -> list[list[int]]:
    return [_encoded(text, tokenizer)[start:] for text in kind.texts(lower, upper)]


def _encoded(text: str, tokenizer: Any) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))
