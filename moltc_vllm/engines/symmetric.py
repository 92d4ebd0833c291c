"""Asking about two drugs in both orders: the question has none, a language model does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from moltc_vllm.tasks import Answer, Choice, Task, get_task
from moltc_vllm.tasks.engine import Counting, Engine, Pair


def is_symmetric_binary(task: Task) -> bool:
    """Whether the answers of both orders can be joined: of a symmetric task with two labels."""
    return task.symmetric and isinstance(task.kind, Choice) and len(task.kind.labels) == 2


class SymmetrizedEngine:
    """An engine whose answer of a symmetric task is the mean of those in both orders.

    Other tasks go through as they are. A pair that cannot be asked in one of the orders gets the
    answer that says why.

    Args:
        engine: Who is asked, twice per pair.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def counters(self) -> dict[str, int]:
        """Of the engine, if it counts."""
        return self._engine.counters() if isinstance(self._engine, Counting) else {}

    def submit(
        self, task: str, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, Answer]]:
        """Answer every pair; see `moltc_vllm.tasks.engine.Engine`."""
        wanted = get_task(task)
        if not is_symmetric_binary(wanted):
            yield from self._engine.submit(task, pairs, question)
            return
        open_pairs: dict[int, Pair] = {}

        def doubled() -> Iterator[Pair]:
            for number, pair in enumerate(pairs):
                open_pairs[number] = pair
                yield Pair(2 * number, pair.molecules)
                yield Pair(2 * number + 1, pair.molecules[::-1])

        halves: dict[int, tuple[int, Answer]] = {}
        for half, answer in self._engine.submit(task, doubled(), question):
            number, turned = divmod(half.row, 2)
            other = halves.pop(number, None)
            if other is None:
                halves[number] = turned, answer
                continue
            first, second = (answer, other[1]) if other[0] else (other[1], answer)
            yield open_pairs.pop(number), joined(wanted, first, second)


def joined(task: Task, first: Answer, second: Answer) -> Answer:
    """The answer with the mean chance of each of the two labels.

    Args:
        task: With two labels.
        first: In the order that was given.
        second: In the other one.
    """
    for answer in (first, second):
        if answer.status != "ok":
            return answer
    if first.confidence is None or second.confidence is None:
        return first
    assert isinstance(task.kind, Choice)
    label = task.kind.labels[1]

    def chance(answer: Answer) -> float:
        sure = answer.confidence or 0.0
        return sure if answer.label_id == label.id else 1 - sure

    mean = (chance(first) + chance(second)) / 2
    chosen = label if mean > 0.5 else task.kind.labels[0]
    return first.model_copy(
        update={
            "label": chosen.name,
            "label_id": chosen.id,
            "confidence": max(mean, 1 - mean),
            "text": chosen.text,
        }
    )
