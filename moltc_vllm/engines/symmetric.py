"""Engine wrapper that averages over both orders of the molecules in symmetric tasks.

The question of a symmetric task does not depend on the order, but a language model's answer does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from moltc_vllm.tasks import Answer, Choice, Task, get_task
from moltc_vllm.tasks.engine import CountingEngine, Engine, OrderAwareEngine, Pair


def is_symmetric_binary(task: Task) -> bool:
    """Return whether a task is symmetric and has two labels, so that orders can be averaged."""
    return task.symmetric and isinstance(task.kind, Choice) and len(task.kind.labels) == 2


class SymmetrizedEngine:
    """Engine that averages the label probabilities of both orders of a symmetric binary task.

    Pairs of other tasks are passed on unchanged, and so are all pairs of an engine that ignores the
    order. If one order fails, the pair gets that failed answer.

    Args:
        engine: Engine that answers each order.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def counters(self) -> dict[str, int]:
        """Return the counts of the wrapped engine; empty if it does not count."""
        return self._engine.counters() if isinstance(self._engine, CountingEngine) else {}

    def ignores_order(self, task: str) -> bool:
        """Return whether the wrapped engine itself ignores the order of the molecules."""
        engine = self._engine
        return isinstance(engine, OrderAwareEngine) and engine.ignores_order(task)

    def submit(
        self, task: str, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, Answer]]:
        """Answer every pair; see `moltc_vllm.tasks.engine.Engine`."""
        known_task = get_task(task)
        if not is_symmetric_binary(known_task) or self.ignores_order(task):
            yield from self._engine.submit(task, pairs, question)
            return
        open_pairs: dict[int, Pair] = {}

        def both_orders() -> Iterator[Pair]:
            for index, pair in enumerate(pairs):
                open_pairs[index] = pair
                yield Pair(2 * index, pair.molecules)
                yield Pair(2 * index + 1, pair.molecules[::-1])

        first_answers: dict[int, tuple[int, Answer]] = {}  # (is reversed, answer) by pair
        for ordered_pair, answer in self._engine.submit(task, both_orders(), question):
            index, is_reversed = divmod(ordered_pair.row, 2)
            other = first_answers.pop(index, None)
            if other is None:
                first_answers[index] = is_reversed, answer
                continue
            other_is_reversed, other_answer = other
            given, reversed_ = (
                (answer, other_answer) if other_is_reversed else (other_answer, answer)
            )
            yield open_pairs.pop(index), average_orders(known_task, given, reversed_)


def average_orders(task: Task, given: Answer, reversed_: Answer) -> Answer:
    """Return the answer with the mean probability of each label over both orders.

    Args:
        task: Task with two labels.
        given: The answer in the order of the caller.
        reversed_: The answer in the reversed order.
    """
    for answer in (given, reversed_):
        if answer.status != "ok":
            return answer
    if given.confidence is None or reversed_.confidence is None:
        return given
    assert isinstance(task.kind, Choice)
    first_label, second_label = task.kind.labels

    def second_label_probability(answer: Answer) -> float:
        confidence = answer.confidence or 0.0
        return confidence if answer.label_id == second_label.id else 1 - confidence

    mean = (second_label_probability(given) + second_label_probability(reversed_)) / 2
    label = second_label if mean > 0.5 else first_label
    return given.model_copy(
        update={
            "label": label.name,
            "label_id": label.id,
            "confidence": max(mean, 1 - mean),
            "text": label.text,
        }
    )
