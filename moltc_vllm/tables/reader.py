"""Open a file of any supported format as a table, or read some of its columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from moltc_vllm.tables.formats import detect_format
from moltc_vllm.tables.streams import read_start
from moltc_vllm.tables.table import Record, Table, TableError, unreadable_error


def open_table(path: Path) -> Table:
    """Open a file as a table of text cells that keeps every row.

    Args:
        path: Path of the file; CSV, TSV, SMILES, SDF or Parquet, plain or compressed.

    Raises:
        TableError: If the file cannot be read, or two of its columns have the same name.
    """
    table = _open(path)
    repeated = next((name for name in table.columns if table.columns.count(name) > 1), None)
    if repeated is not None:
        raise TableError(f"{path.name} has more than one column {repeated!r}")
    return replace(table, records=lambda: _read_records(table))


def read_columns(path: Path, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Read some columns of a file, in C++ where its format allows; for files without bad rows.

    Args:
        path: Path of the file, as in `open_table`.
        names: Names of the columns, at least one. Other columns may have equal names.

    Returns:
        Iterator over the rows: one cell per name. A cell is a text, empty if it is missing; a
        Parquet cell has the type of the file, ``None`` if it is missing. Empty lines are skipped.

    Raises:
        ValueError: If no column is named: pyarrow would return all of them.
        TableError: If the file cannot be read or a column does not exist; while iterating, at the
            first row that cannot be read.
    """
    if not names:
        raise ValueError(f"{path.name}: name at least one column to read")
    table = _open(path)
    indices = [table.column_index(name) for name in names]
    return _read_rows(table, names, indices)


def _open(path: Path) -> Table:
    with _file_errors(path):
        start = read_start(path)
        return detect_format(path, start).open(path, start)


def _read_records(table: Table) -> Iterator[Record]:
    with _file_errors(table.path):
        yield from table.records()


def _read_rows(
    table: Table, names: Sequence[str], indices: Sequence[int]
) -> Iterator[tuple[Any, ...]]:
    with _file_errors(table.path):
        if table.read_batches is not None:
            for batch in table.read_batches(names):
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
            return
        for row_number, record in enumerate(table.records(), 1):
            if record.error is not None:
                raise TableError(f"{table.path.name}, row {row_number}: {record.error}")
            yield tuple(record.cells[index] for index in indices)


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    """Convert errors of the operating system and of Arrow to errors that name the file."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise unreadable_error(path, error) from error
