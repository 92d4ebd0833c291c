"""Trie of the token sequences that can answer a task, so that only real choices need the model.

Where a prefix has a single continuation, its tokens are forced and are not generated
(jump-forward decoding).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from moltc_vllm.models.interval_tokens import interval_vocabulary
from moltc_vllm.tasks import Choice, Number, Task
from moltc_vllm.tasks.number import VALUE_MARK

MAX_VALUES_PER_INTERVAL = 1_000
"""Limit on the values of one interval; a number with more is generated like any text."""


class TrieNode:
    """A prefix of answers; a node without children ends an answer.

    Args:
        expand: Callback that returns the token sequences of the answers below this node. It is
            called on first access to `children`; default: answers are only added by `add`.
    """

    __slots__ = ("_children", "_expand")

    def __init__(self, expand: Callable[[], list[list[int]]] | None = None) -> None:
        self._children: dict[int, TrieNode] = {}
        self._expand = expand

    @property
    def children(self) -> dict[int, TrieNode]:
        """Child nodes by the token that leads to them."""
        if self._expand is not None:
            answers, self._expand = self._expand(), None
            for answer in answers:
                self.add(answer)
        return self._children

    def add(self, tokens: list[int], end: TrieNode | None = None) -> None:
        """Add an answer below this node.

        Args:
            tokens: Token ids that follow this node's prefix, at least one.
            end: Node after the last token; default: a new one, which ends the answer.
        """
        *inner, last = tokens
        node = self
        for token in inner:
            node = node.children.setdefault(token, TrieNode())
        node.children.setdefault(last, end or TrieNode())

    def forced_prefix(self) -> tuple[list[int], TrieNode]:
        """Follow single children to the next choice or end.

        Returns:
            The forced tokens and the node that they lead to.
        """
        tokens, node = [], self
        while len(node.children) == 1:
            ((token, node),) = node.children.items()
            tokens.append(token)
        return tokens, node


def answer_trie(task: Task, tokenizer: Any) -> TrieNode | None:
    """Build the trie of a task's answers.

    Labels are whole sentences followed by the end token. A number whose intervals are one token
    each is that token alone, because the value is the mean over intervals and the digits would add
    nothing to it. Any other number is a whole sentence of which only the digits are a choice.

    Args:
        task: Task of any kind.
        tokenizer: Tokenizer of the checkpoint.

    Returns:
        The root; ``None`` for tasks without a finite set of answers, and for numbers with more than
        `MAX_VALUES_PER_INTERVAL` values in an interval.
    """
    return _build(task, tokenizer) if isinstance(task.kind, Choice | Number) else None


@lru_cache(maxsize=64)
def _build(task: Task, tokenizer: Any) -> TrieNode | None:
    if isinstance(task.kind, Choice):
        return _label_trie(task.kind, tokenizer)
    intervals = interval_vocabulary(task, tokenizer)
    if intervals is None:
        return _number_trie(task.kind, tokenizer)
    root = TrieNode()
    for token in intervals.token_ids.tolist():
        root.add([token])
    return root


def _label_trie(kind: Choice, tokenizer: Any) -> TrieNode:
    root = TrieNode()
    for label in kind.labels:
        # The end token is needed where one label's sentence is a prefix of another's.
        root.add([*_encode(label.text, tokenizer), tokenizer.eos_token_id])
    return root


def _number_trie(kind: Any, tokenizer: Any) -> TrieNode | None:
    """Build the trie of all intervals, each followed by its values."""
    root = TrieNode()
    for lower, upper in kind.intervals():
        if kind.count(lower, upper) > MAX_VALUES_PER_INTERVAL:
            return None
        interval = _encode(kind.interval_text(lower, upper) + VALUE_MARK, tokenizer)
        first_value = _encode(next(kind.texts(lower, upper)), tokenizer)
        if first_value[: len(interval)] != interval:
            # A token spans the end of the interval and the value, so the two cannot be separated.
            return None
        expand = partial(_value_tokens, kind, tokenizer, lower, upper, len(interval))
        root.add(interval, TrieNode(expand))
    return root


def _value_tokens(
    kind: Any, tokenizer: Any, lower: float, upper: float, start: int
) -> list[list[int]]:
    return [_encode(text, tokenizer)[start:] for text in kind.texts(lower, upper)]


def _encode(text: str, tokenizer: Any) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))
