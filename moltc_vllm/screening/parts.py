"""Output parts: Parquet files with a fixed number of pairs each, written atomically."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from moltc_vllm.screening.answer_columns import (
    ANSWER_NAMES,
    CONFIDENCE,
    ERROR,
    HIGH,
    ITEMS,
    LABEL,
    LOW,
    STATUS,
    TEXT,
    UNIT,
    VALUE,
    AnswerColumns,
)
from moltc_vllm.screening.inputs import PairTables
from moltc_vllm.screening.plan import PairIndex
from moltc_vllm.tasks import Answer
from moltc_vllm.utils.atomic_files import new_file

ROW, LEFT_ROW, RIGHT_ROW = "row", "left_row", "right_row"

_IDENTITY = b"moltc_screen"

ANSWER_COLUMNS = ANSWER_NAMES | {ROW, LEFT_ROW, RIGHT_ROW}
"""Columns that the parts of any task may have."""

_RESERVED = frozenset(
    {
        *(ROW, LEFT_ROW, RIGHT_ROW, STATUS, ERROR, CONFIDENCE, TEXT),
        *(VALUE, UNIT, LOW, HIGH, LABEL, ITEMS),
    }
)
"""Input columns of these names are renamed in every screen, as in version 0.1."""


class AnsweredPair(NamedTuple):
    """A pair with its answer."""

    pair_index: PairIndex
    answer: Answer


class PartLayout:
    """Columns of a screen's parts, and the conversion of answers to rows.

    The columns are ``row``; ``left_row`` and ``right_row`` unless each input row is a pair; the
    input's own columns, with ``input_`` in front of names that are taken; and the answer columns.

    Args:
        inputs: Input tables, whose columns are copied.
        answer_columns: Columns of the answers.

    Attributes:
        schema: Arrow schema of the parts.
    """

    def __init__(self, inputs: PairTables, answer_columns: AnswerColumns) -> None:
        self._inputs = inputs
        self._answer_columns = answer_columns
        leading = {ROW: pa.int64()}
        if not inputs.is_pair_table:
            leading |= {LEFT_ROW: pa.int64(), RIGHT_ROW: pa.int64()}
        copied = _unique_names(inputs.columns, _RESERVED.union(answer_columns.names))
        trailing = answer_columns.types.items()
        fields = [*leading.items(), *((name, pa.string()) for name in copied), *trailing]
        self.schema = pa.schema(fields)

    def table(self, answered: Iterable[AnsweredPair]) -> pa.Table:
        """Return answered pairs as a table, in the given order."""
        rows = [self._row(pair_index, answer) for pair_index, answer in answered]
        columns: Iterable[Sequence[Any]] = zip(*rows, strict=True)
        arrays = [
            pa.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def answer(self, row: Mapping[str, Any]) -> Answer:
        """Return the answer in a row of a part.

        Args:
            row: Values by column name.
        """
        return self._answer_columns.answer(row)

    def _row(self, pair_index: PairIndex, answer: Answer) -> list[Any]:
        table_rows = (
            [] if self._inputs.is_pair_table else [pair_index.first + 1, pair_index.second + 1]
        )
        return [
            pair_index.row,
            *table_rows,
            *self._inputs.cells(pair_index),
            *self._answer_columns.cells(answer),
        ]


def _unique_names(columns: Sequence[str], reserved: frozenset[str]) -> list[str]:
    """Prefix input columns whose name is taken with ``input_``."""
    names: list[str] = []
    for name in columns:
        while name in reserved or name in names:
            name = f"input_{name}"
        names.append(name)
    return names


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
