"""Conversion of predicted numbers and probabilities to answers for `moltc_vllm.evaluate`."""

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
    """Return the targets of rows, ``[rows]``: numbers, or label ids."""
    return np.array([row.target for row in rows])


def number_answers(task: Task, rows: Sequence[Row], values: Array) -> Answers:
    """Convert numbers to answers without interval and confidence.

    Args:
        task: Task with numeric answers.
        rows: Rows to answer.
        values: Predicted numbers, ``[rows]``.
    """
    assert isinstance(task.kind, Number)
    unit = task.kind.unit or None
    answers: Answers = {}
    for row, value in zip(rows, values.tolist(), strict=True):
        answers[row.number] = Answer(
            task=task.name, status="ok", value=value, generated_value=value, unit=unit
        )
    return answers


def label_answers(
    task: Task, rows: Sequence[Row], ids: Sequence[int], probabilities: Array
) -> Answers:
    """Convert probabilities to answers with the most probable label.

    The confidence of an answer is the probability of its label.

    Args:
        task: Task with labels.
        rows: Rows to answer.
        ids: Label ids of the columns of `probabilities`.
        probabilities: Predicted probabilities, ``[rows, ids]``.
    """
    assert isinstance(task.kind, Choice)
    names = {label.id: label.name for label in task.kind.labels}
    best = probabilities.argmax(axis=1)
    confidences = probabilities[np.arange(len(rows)), best].clip(0, 1)
    return {
        row.number: Answer(
            task=task.name,
            status="ok",
            label=names[int(ids[column])],
            label_id=int(ids[column]),
            confidence=float(confidence),
        )
        for row, column, confidence in zip(rows, best, confidences, strict=True)
    }
