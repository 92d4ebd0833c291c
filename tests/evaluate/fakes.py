"""Engines without a model, data sets without a file, and answers without an engine."""

import random

from moltc_vllm.data import COLUMNS, Dataset, Row
from moltc_vllm.tasks import get_task


class FakeEngine:
    """Engine that computes each answer with a function.

    Args:
        answer: Function of task and pair.
        order: Function that orders the pairs; default: the last one first.

    Attributes:
        num_submitted: Number of pairs that the engine has taken so far.
    """

    def __init__(self, answer, order=reversed):
        self.answer = answer
        self.order = order
        self.num_submitted = 0

    def submit(self, task, pairs, question=None):
        assert question is None
        for pair in self.order(list(self._count(pairs))):
            yield pair, self.answer(get_task(task), pair)

    def _count(self, pairs):
        for pair in pairs:
            self.num_submitted += 1
            yield pair


def shuffled(seed):
    return lambda pairs: random.Random(seed).sample(pairs, len(pairs))


def make_dataset(name, targets, split=None):
    """Make rows with the given targets and placeholder molecules; ``None`` is a missing target."""
    columns = COLUMNS[name]
    rows = [
        Row(number, tuple(f"C{number}" for _ in columns.molecules), target)
        for number, target in enumerate(targets, 1)
    ]
    measured = tuple(row for row in rows if row.target is not None)
    rest = tuple(row for row in rows if row.target is None)
    return Dataset(
        "made_up.csv", "0" * 64, columns, split, len(rows), len(measured), measured, rest
    )


def make_answer(name, target, confidence=None):
    """Make the answer of a model that writes the text of a target."""
    task = get_task(name)
    answer = task.parse_answer(task.write(target))
    assert answer.status == "ok"
    return answer.model_copy(update={"confidence": confidence})
