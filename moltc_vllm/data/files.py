"""Data files: checksums and columns, with errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moltc_vllm.tables import TableError, read_columns
from moltc_vllm.utils import atomic_files
from moltc_vllm.utils.errors import one_line


class DataError(ValueError):
    """Error of a data file or data set that cannot be used; the message is one line."""


def sha256(path: Path) -> str:
    """Compute the checksum of a file on disk, i.e. of its compressed bytes.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        return atomic_files.sha256(path)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise DataError(f"{path.name} cannot be read: {reason}") from error


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Read some columns of a data file; see `moltc_vllm.tables.read_columns`.

    Args:
        path: Path of the file.
        columns: Names of the columns.

    Returns:
        Iterator over the rows, with one cell per column.

    Raises:
        DataError: If the file cannot be read or a column does not exist; while iterating, if the
            file is damaged.
    """
    with _table_errors_as_data_errors():
        rows = read_columns(path, columns)
    return _iterate(rows)


def _iterate(rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    with _table_errors_as_data_errors():
        yield from rows


@contextmanager
def _table_errors_as_data_errors() -> Iterator[None]:
    try:
        yield
    except TableError as error:
        raise DataError(str(error)) from error
