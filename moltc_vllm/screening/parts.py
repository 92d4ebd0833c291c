"""The output: Parquet files of so many pairs each, whole or not there at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from moltc_vllm.screening.inputs import PairTables
from moltc_vllm.screening.plan import PairIndex
from moltc_vllm.tasks import Answer, Choice, Number, Task, Terms
from moltc_vllm.utils.atomic_files import new_file

ROW, LEFT_ROW, RIGHT_ROW = "row", "left_row", "right_row"
STATUS, ERROR, CONFIDENCE, TEXT = "status", "error", "confidence", "text"
VALUE, UNIT, LOW, HIGH, LABEL, ITEMS = "value", "unit", "low", "high", "label", "items"

_IDENTITY = b"moltc_screen"
_DIGITS = 6  # of a confidence: what depends on the batch that a pair was in is beyond


class AnsweredPair(NamedTuple):
    """A pair with its answer."""

    pair_index: PairIndex
    answer: Answer


class Layout:
    """The columns of a screen's parts.

    ``row``, where a product ``left_row`` and ``right_row``, the input's own columns (those that are
    called like one of ours get ``input_`` in front), ``status``, ``error``, what the task answers,
    ``confidence``, and ``text`` if it is wanted or is the answer.

    Args:
        inputs: Whose columns travel along.
        task: What is asked.
        text: Whether the model's own words are kept.
    """

    def __init__(self, inputs: PairTables, task: Task, *, text: bool = False) -> None:
        self._inputs = inputs
        before = {ROW: pa.int64()}
        if not inputs.is_pair_table:
            before |= {LEFT_ROW: pa.int64(), RIGHT_ROW: pa.int64()}
        after = {STATUS: pa.string(), ERROR: pa.string(), **_answer_columns(task)}
        after[CONFIDENCE] = pa.float64()
        if text or not isinstance(task.kind, Choice | Number | Terms):
            after[TEXT] = pa.string()
        named = _free_names(inputs.columns)
        self._answer_columns = list(after)
        fields = [*before.items(), *((name, pa.string()) for name in named), *after.items()]
        self.schema = pa.schema(fields)

    def table(self, rows: Iterable[AnsweredPair]) -> pa.Table:
        """Pairs as a table, in their order."""
        lines = [self._cells(row) for row in rows]
        columns: Iterable[Sequence[Any]] = zip(*lines, strict=True)
        arrays = [
            pa.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _cells(self, row: AnsweredPair) -> list[Any]:
        index, answer = row
        places = [] if self._inputs.is_pair_table else [index.first + 1, index.second + 1]
        low, high = answer.interval or (None, None)
        confidence = None if answer.confidence is None else round(answer.confidence, _DIGITS)
        found = {
            STATUS: answer.status,
            ERROR: answer.error,
            VALUE: answer.value,
            UNIT: answer.unit,
            LOW: low,
            HIGH: high,
            LABEL: answer.label,
            ITEMS: answer.items,
            CONFIDENCE: confidence,
            TEXT: answer.text,
        }
        own = (found[name] for name in self._answer_columns)
        return [index.row, *places, *self._inputs.cells(index), *own]


ANSWER_COLUMNS = frozenset(
    {
        *(ROW, LEFT_ROW, RIGHT_ROW, STATUS, ERROR, CONFIDENCE, TEXT),
        *(VALUE, UNIT, LOW, HIGH, LABEL, ITEMS),
    }
)
"""Names that no column of an input keeps: those of parts, of any task."""


def _free_names(columns: Sequence[str]) -> list[str]:
    """The input's own columns; those called like one of any task's get ``input_`` in front."""
    names: list[str] = []
    for name in columns:
        while name in ANSWER_COLUMNS or name in names:
            name = f"input_{name}"
        names.append(name)
    return names


def _answer_columns(task: Task) -> dict[str, pa.DataType]:
    match task.kind:
        case Choice():
            return {LABEL: pa.string()}
        case Number():
            return {VALUE: pa.float64(), UNIT: pa.string(), LOW: pa.float64(), HIGH: pa.float64()}
        case Terms():
            return {ITEMS: pa.list_(pa.string())}
        case _:
            return {}


def answer_of(task: Task, row: Mapping[str, Any]) -> Answer:
    """The answer in a row of a part."""
    status, error, text = row[STATUS], row[ERROR], row.get(TEXT)
    if status != "ok":
        return task.failed(status, error, text)
    label = row.get(LABEL)
    ids = {one.name: one.id for one in task.kind.labels} if isinstance(task.kind, Choice) else {}
    low, items = row.get(LOW), row.get(ITEMS)
    return Answer(
        task=task.name,
        status="ok",
        value=row.get(VALUE),
        unit=row.get(UNIT),
        interval=None if low is None else (low, row[HIGH]),
        label=label,
        label_id=None if label is None else ids[label],
        items=None if items is None else tuple(items),
        confidence=row[CONFIDENCE],
        text=text,
    )


def part_path(folder: Path, number: int) -> Path:
    """The file of a part."""
    return folder / f"part-{number:06d}.parquet"


def write_part(folder: Path, number: int, table: pa.Table, identity: str) -> None:
    """Write a part; after this it is on the disk, before it is not there."""
    marked = table.replace_schema_metadata({_IDENTITY: f"{identity} {number}"})
    with new_file(part_path(folder, number)) as partial:
        pa_parquet.write_table(marked, partial, compression="zstd")
    _mark(folder, number).unlink(missing_ok=True)


def mark_for_retry(folder: Path, number: int) -> None:
    """Let a part be made again; until it is, it stays as it is."""
    _mark(folder, number).touch()


def needs_retry(folder: Path, number: int) -> bool:
    """Whether a part is to be made again."""
    return _mark(folder, number).exists()


def _mark(folder: Path, number: int) -> Path:
    return folder / f".again-{number:06d}"


def read_part(folder: Path, number: int) -> pa.Table:
    """The rows of a part."""
    with pa_parquet.ParquetFile(part_path(folder, number)) as file:
        return file.read(use_threads=False).replace_schema_metadata()


def read_statuses(folder: Path, number: int) -> list[str]:
    """The status of each row of a part."""
    with pa_parquet.ParquetFile(part_path(folder, number)) as file:
        found: list[str] = file.read([STATUS], use_threads=False)[STATUS].to_pylist()
        return found


def is_written(folder: Path, number: int, rows: int, identity: str) -> bool:
    """Whether a part is there, whole, and of this very screen."""
    try:
        with pa_parquet.ParquetFile(part_path(folder, number)) as file:
            mark = (file.schema_arrow.metadata or {}).get(_IDENTITY)
            return file.metadata.num_rows == rows and mark == f"{identity} {number}".encode()
    except (OSError, pa.ArrowException):
        return False
