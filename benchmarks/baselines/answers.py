"""Predicted numbers and probabilities as the answers that `moltc_vllm.evaluate` scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from baselines.problem import Answers
from moltc_vllm.data import Row
from moltc_vllm.tasks import Answer, Choice, Number, Task

Array = npt.NDArray[np.float64]


def targets(rows: Sequence[Row]) -> npt.NDArray[Any]:
    """What was measured, ``[rows]``: numbers, or ids of labels."""
    return np.array([row.target for row in rows])


def number_answers(task: Task, rows: Sequence[Row], values: Array) -> Answers:
    """One number for each row; there is no interval and no confidence."""
    assert isinstance(task.kind, Number)
    unit = task.kind.unit or None
    answers: Answers = {}
    for row, number in zip(rows, values.tolist(), strict=True):
        answers[row.number] = Answer(
            task=task.name, status="ok", value=number, generated_value=number, unit=unit
        )
    return answers


def label_answers(
    task: Task, rows: Sequence[Row], ids: Sequence[int], probabilities: Array
) -> Answers:
    """The most probable label of each row, and its probability as the confidence.

    Args:
        task: What is asked.
        rows: To be answered.
        ids: The labels that were learned.
        probabilities: ``[rows, ids]``.
    """
    assert isinstance(task.kind, Choice)
    names = {label.id: label.name for label in task.kind.labels}
    best = probabilities.argmax(axis=1)
    highest = probabilities[np.arange(len(rows)), best].clip(0, 1)
    return {
        row.number: Answer(
            task=task.name,
            status="ok",
            label=names[int(ids[place])],
            label_id=int(ids[place]),
            confidence=float(probability),
        )
        for row, place, probability in zip(rows, best, highest, strict=True)
    }
