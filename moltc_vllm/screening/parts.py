"""Output parts: Parquet files with a fixed number of pairs each, written atomically."""

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
_CONFIDENCE_DIGITS = 6  # further digits depend on the batch in which a pair was computed

ANSWER_COLUMNS = frozenset(
    {
        *(ROW, LEFT_ROW, RIGHT_ROW, STATUS, ERROR, CONFIDENCE, TEXT),
        *(VALUE, UNIT, LOW, HIGH, LABEL, ITEMS),
    }
)
"""Columns that the parts of any task may have; input columns of these names are renamed."""


class AnsweredPair(NamedTuple):
    """A pair with its answer."""

    pair_index: PairIndex
    answer: Answer


class PartLayout:
    """Columns of a screen's parts, and the conversion of answers to rows.

    The columns are ``row``; ``left_row`` and ``right_row`` unless each input row is a pair; the
    input's own columns, with ``input_`` in front of names in `ANSWER_COLUMNS`; ``status``;
    ``error``; the columns of the task's answer; ``confidence``; and ``text`` if it is kept or is
    the answer itself.

    Args:
        inputs: Input tables, whose columns are copied.
        task: Task that the pairs are answered for.
        text: Whether to keep the text that the model generated.

    Attributes:
        schema: Arrow schema of the parts.
    """

    def __init__(self, inputs: PairTables, task: Task, *, text: bool = False) -> None:
        self._inputs = inputs
        leading = {ROW: pa.int64()}
        if not inputs.is_pair_table:
            leading |= {LEFT_ROW: pa.int64(), RIGHT_ROW: pa.int64()}
        trailing = {STATUS: pa.string(), ERROR: pa.string(), **_answer_columns(task)}
        trailing[CONFIDENCE] = pa.float64()
        if text or not isinstance(task.kind, Choice | Number | Terms):
            trailing[TEXT] = pa.string()
        copied = _unique_names(inputs.columns)
        self._answer_columns = list(trailing)
        fields = [*leading.items(), *((name, pa.string()) for name in copied), *trailing.items()]
        self.schema = pa.schema(fields)

    def table(self, answered: Iterable[AnsweredPair]) -> pa.Table:
        """Return answered pairs as a table, in the given order."""
        rows = [self._row(pair_index, answer) for pair_index, answer in answered]
        columns: Iterable[Sequence[Any]] = zip(*rows, strict=True)
        arrays = [
            pa.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _row(self, pair_index: PairIndex, answer: Answer) -> list[Any]:
        table_rows = (
            [] if self._inputs.is_pair_table else [pair_index.first + 1, pair_index.second + 1]
        )
        low, high = answer.interval or (None, None)
        confidence = (
            None if answer.confidence is None else round(answer.confidence, _CONFIDENCE_DIGITS)
        )
        values = {
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
        return [
            pair_index.row,
            *table_rows,
            *self._inputs.cells(pair_index),
            *(values[name] for name in self._answer_columns),
        ]


def _unique_names(columns: Sequence[str]) -> list[str]:
    """Prefix input columns whose name is taken with ``input_``."""
    names: list[str] = []
    for name in columns:
        while name in ANSWER_COLUMNS or name in names:
            name = f"input_{name}"
        names.append(name)
    return names


def _answer_columns(task: Task) -> dict[str, pa.DataType]:
    """Return the columns of a task's answer, by its kind."""
    match task.kind:
        case Choice():
            return {LABEL: pa.string()}
        case Number():
            return {VALUE: pa.float64(), UNIT: pa.string(), LOW: pa.float64(), HIGH: pa.float64()}
        case Terms():
            return {ITEMS: pa.list_(pa.string())}
        case _:
            return {}


def answer_from_row(task: Task, row: Mapping[str, Any]) -> Answer:
    """Return the answer in a row of a part.

    Args:
        task: Task of the screen.
        row: Values by column name.
    """
    status, error, text = row[STATUS], row[ERROR], row.get(TEXT)
    if status != "ok":
        return task.failed(status, error, text)
    label = row.get(LABEL)
    labels = task.kind.labels if isinstance(task.kind, Choice) else ()
    label_ids = {option.name: option.id for option in labels}
    low, items = row.get(LOW), row.get(ITEMS)
    return Answer(
        task=task.name,
        status="ok",
        value=row.get(VALUE),
        unit=row.get(UNIT),
        interval=None if low is None else (low, row[HIGH]),
        label=label,
        label_id=None if label is None else label_ids[label],
        items=None if items is None else tuple(items),
        confidence=row[CONFIDENCE],
        text=text,
    )


def part_path(folder: Path, number: int) -> Path:
    """Return the path of a part."""
    return folder / f"part-{number:06d}.parquet"


def write_part(folder: Path, number: int, table: pa.Table, identity: str) -> None:
    """Write the part atomically and fsync it.

    Args:
        folder: Folder of the screen.
        number: Number of the part, from 0.
        table: Rows of the part.
        identity: Checksum of the screen's settings, stored in the file's metadata.
    """
    marked = table.replace_schema_metadata({_IDENTITY: f"{identity} {number}"})
    with new_file(part_path(folder, number)) as partial:
        pa_parquet.write_table(marked, partial, compression="zstd")
    _retry_marker(folder, number).unlink(missing_ok=True)


def mark_for_retry(folder: Path, number: int) -> None:
    """Mark a part to be computed again; its file stays until the new one replaces it."""
    _retry_marker(folder, number).touch()


def needs_retry(folder: Path, number: int) -> bool:
    """Return whether a part is marked to be computed again."""
    return _retry_marker(folder, number).exists()


def _retry_marker(folder: Path, number: int) -> Path:
    # The name is part of the output format: a marked folder may be resumed by another version.
    return folder / f".again-{number:06d}"


def read_part(folder: Path, number: int) -> pa.Table:
    """Read the rows of a part."""
    with pa_parquet.ParquetFile(part_path(folder, number)) as file:
        return file.read(use_threads=False).replace_schema_metadata()


def read_statuses(folder: Path, number: int) -> list[str]:
    """Read the status of each row of a part."""
    with pa_parquet.ParquetFile(part_path(folder, number)) as file:
        statuses: list[str] = file.read([STATUS], use_threads=False)[STATUS].to_pylist()
        return statuses


def is_written(folder: Path, number: int, rows: int, identity: str) -> bool:
    """Return whether a part exists, is complete and belongs to this screen.

    Args:
        folder: Folder of the screen.
        number: Number of the part, from 0.
        rows: Expected number of rows.
        identity: Checksum of the screen's settings.
    """
    try:
        with pa_parquet.ParquetFile(part_path(folder, number)) as file:
            mark = (file.schema_arrow.metadata or {}).get(_IDENTITY)
            return file.metadata.num_rows == rows and mark == f"{identity} {number}".encode()
    except (OSError, pa.ArrowException):
        return False
