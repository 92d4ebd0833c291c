"""Interface of an engine: the code that answers pairs of molecules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from moltc_vllm.tasks.answer import Answer


class EngineError(RuntimeError):
    """An engine failed as a whole or broke the `Engine` contract."""


class Pair(NamedTuple):
    """Molecules of one question, with an index that identifies their answer.

    Attributes:
        row: Index chosen by the caller, unique among the pairs of a call.
        molecules: SMILES in the order of the task's roles.
    """

    row: int
    molecules: tuple[str, ...]


class Engine(Protocol):
    """Engine that answers pairs: vLLM in this process, a server, a cluster, or plain PyTorch."""

    def submit(
        self, task: str, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, Answer]]:
        """Answer every pair exactly once, in any order.

        The engine consumes ``pairs`` lazily, at the rate at which it answers them. A failure that
        concerns one pair yields an `Answer` with the reason and does not affect other pairs.

        Args:
            task: Name of the task.
            pairs: Pairs to answer.
            question: Text of the question, for tasks that take one.
        """
        ...


@runtime_checkable
class CountingEngine(Protocol):
    """Engine that counts the tokens it processes."""

    def counters(self) -> dict[str, int]:
        """Return counts since the engine was created; keys are `COUNTERS`."""
        ...


@runtime_checkable
class OrderAwareEngine(Protocol):
    """Engine that knows whether the order of the molecules matters."""

    def ignores_order(self, task: str) -> bool:
        """Return whether the answers to a task are equal for all orders of the molecules."""
        ...


COUNTERS = ("prompt_tokens", "cached_tokens")
"""Number of prompt tokens, and number of those found in the prefix cache."""
