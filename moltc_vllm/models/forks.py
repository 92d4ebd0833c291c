"""Where the possible answers of a task part: all that a model has to decide."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from moltc_vllm.models.scale import interval_scale
from moltc_vllm.tasks import Choice, Number, Task


@dataclass(slots=True)
class Fork:
    """A place in a tree of answers; without ways on, an answer ends there.

    Attributes:
        ways: What follows each token that may stand here.
    """

    ways: dict[int, Fork] = field(default_factory=dict)

    def add(self, tokens: list[int]) -> None:
        """Add an answer that goes on from here."""
        place = self
        for token in tokens:
            place = place.ways.setdefault(token, Fork())

    def forced(self) -> tuple[list[int], Fork]:
        """The tokens that have to follow, and the next place where there is something to decide."""
        tokens, place = [], self
        while len(place.ways) == 1:
            ((token, place),) = place.ways.items()
            tokens.append(token)
        return tokens, place


def answer_tree(task: Task, tokenizer: Any) -> Fork | None:
    """All answers of a task as tokens, as the tokenizer writes them.

    Labels as whole sentences. Numbers by their interval, where each is one token: the interval and
    the mean of all of them are the answer, and the digits after it add nothing to them. ``None``
    for other tasks.
    """
    return _tree(task, tokenizer) if isinstance(task.kind, Choice | Number) else None


@lru_cache(maxsize=64)
def _tree(task: Task, tokenizer: Any) -> Fork | None:
    root = Fork()
    if isinstance(task.kind, Choice):
        for label in task.kind.labels:
            # An end, as one label's sentence may begin with another one's.
            tokens = tokenizer.encode(label.text, add_special_tokens=False)
            root.add([*tokens, tokenizer.eos_token_id])
        return root
    scale = interval_scale(task, tokenizer)
    if scale is None:
        return None
    for token in scale.tokens.tolist():
        root.add([token])
    return root
