"""``predictions.csv``: every row of the data with its answer."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from moltc_vllm.data.dataset import Dataset, Row
from moltc_vllm.tasks import Answer

_ANSWER_COLUMNS = (
    "target",
    "status",
    "answer",
    "std",
    "low",
    "high",
    "interval_low",
    "interval_high",
    "confidence",
    "familiarity",
    "notes",
    "text",
    "error",
)
_SEPARATOR = "; "


def write_predictions(path: Path, data: Dataset, answers: Mapping[int, Answer]) -> None:
    """Write all rows of the data in their order.

    The molecule columns are named as in the data, and ``answer`` has the form of the target. The
    status of a row is that of its answer, ``not_measured`` if it has no target, or ``not_reached``
    if the evaluation stopped before it.

    Args:
        path: CSV file to write.
        data: Rows of the data.
        answers: Answers by row number.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("row", *data.columns.molecules, *_ANSWER_COLUMNS))
        for row in sorted((*data.rows, *data.not_measured), key=lambda row: row.number):
            cells = (row.number, *row.molecules, row.target, *_answer_cells(row, answers))
            writer.writerow(map(_format_cell, cells))


def _answer_cells(row: Row, answers: Mapping[int, Answer]) -> Iterator[object]:
    answer = answers.get(row.number)
    if answer is None:
        yield "not_measured" if row.target is None else "not_reached"
        yield from [None] * (len(_ANSWER_COLUMNS) - 2)
        return
    yield answer.status
    yield _comparable(row, answer)
    yield from (answer.std, answer.low, answer.high)
    yield from answer.likeliest_interval or (None, None)
    yield from (answer.confidence, answer.familiarity, _SEPARATOR.join(answer.notes) or None)
    yield from (answer.text, answer.error)


def _comparable(row: Row, answer: Answer) -> object:
    """Return the field of the answer that is compared with the target."""
    if answer.status != "ok":
        return None
    if isinstance(row.target, tuple):
        return answer.items
    if isinstance(row.target, str):
        return answer.text
    return answer.label_id if answer.value is None else answer.value


def _format_cell(value: object) -> str:
    if isinstance(value, tuple):
        return _SEPARATOR.join(value)
    return "" if value is None else str(value)
