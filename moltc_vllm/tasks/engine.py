"""What everyone who asks needs of an engine, and nothing more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from moltc_vllm.tasks.answer import Answer


class EngineError(RuntimeError):
    """An engine answered what it was not asked."""


class Pair(NamedTuple):
    """One row of work; ``row`` finds its answer again."""

    row: int
    molecules: tuple[str, ...]  # SMILES


@runtime_checkable
class Counting(Protocol):
    """An engine that tells what it had to do, see `COUNTERS`."""

    def counters(self) -> dict[str, int]:
        """Counts since it was opened, by name."""
        ...


COUNTERS = ("prompt_tokens", "cached_tokens")
"""Tokens of prompts, and those of them whose states were in the prefix cache."""


class Engine(Protocol):
    """Anything that answers pairs: vLLM in this process, a server, a cluster, plain torch."""

    def submit(
        self, task: str, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, Answer]]:
        """Answer every pair exactly once, in any order.

        Pairs are drawn only as fast as they are worked off. A pair that cannot be answered gets
        an `Answer` which says why; no other pair is touched.
        """
        ...
