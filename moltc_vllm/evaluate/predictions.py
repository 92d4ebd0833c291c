"""``predictions.csv``: every row beside its answer."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from moltc_vllm.data.dataset import Dataset, Row
from moltc_vllm.tasks import Answer

_AFTER_MOLECULES = (
    "target",
    "status",
    "answer",
    "interval_low",
    "interval_high",
    "confidence",
    "text",
    "error",
)
_SEPARATOR = "; "


def write_predictions(path: Path, data: Dataset, answers: Mapping[int, Answer]) -> None:
    """Write one row for each row of the data, in its order.

    The molecules' columns are called as in the data; ``answer`` is written as the target is. The
    status of a row without a target is ``not_measured``, that of one that was not answered before
    an interruption ``not_reached``.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("row", *data.columns.molecules, *_AFTER_MOLECULES))
        for row in sorted((*data.rows, *data.not_measured), key=lambda row: row.number):
            cells = (row.number, *row.molecules, row.target, *_answer(row, answers))
            writer.writerow(map(_cell, cells))


def _answer(row: Row, answers: Mapping[int, Answer]) -> Iterator[object]:
    answer = answers.get(row.number)
    if answer is None:
        yield "not_measured" if row.target is None else "not_reached"
        yield from [None] * (len(_AFTER_MOLECULES) - 2)
        return
    yield answer.status
    yield _found(row, answer)
    yield from answer.interval or (None, None)
    yield from (answer.confidence, answer.text, answer.error)


def _found(row: Row, answer: Answer) -> object:
    """The part of the answer that the target is compared with."""
    if answer.status != "ok":
        return None
    if isinstance(row.target, tuple):
        return answer.items
    if isinstance(row.target, str):
        return answer.text
    return answer.label_id if answer.value is None else answer.value


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return _SEPARATOR.join(value)
    return "" if value is None else str(value)
