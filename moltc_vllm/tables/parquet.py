"""Parquet files, with their values as text or in the types of the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from moltc_vllm.tables.streams import find_codec, open_stream
from moltc_vllm.tables.table import Record, Table

PARQUET_MAGIC = b"PAR1"

_BATCH_ROWS = 4096


class _CellError(str):
    """The reason why a cell has no text."""


def open_parquet(path: Path, start: bytes) -> Table:
    """Open a Parquet file as a table.

    Args:
        path: Path of the file.
        start: First bytes of the file; not used.
    """
    with _open_file(path) as file:
        columns = tuple(file.schema_arrow.names)

    def records() -> Iterator[Record]:
        with _open_file(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
                for cells in zip(*map(_to_texts, batch.columns), strict=True):
                    error = next((cell for cell in cells if isinstance(cell, _CellError)), None)
                    yield Record(cells) if error is None else Record((), error)

    def read_batches(names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with _open_file(path) as file:
            for batch in file.iter_batches(columns=list(names), use_threads=False):
                yield batch.select(list(names))

    return Table(path, columns, records, read_batches)


def looks_like_parquet(start: bytes) -> bool:
    """Return whether a file starts with the magic bytes of Parquet."""
    return start.startswith(PARQUET_MAGIC)


def _open_file(path: Path) -> pa_parquet.ParquetFile:
    if find_codec(path) is None:
        return pa_parquet.ParquetFile(path)
    # Parquet is read from its end, so a compressed file has to be decompressed as a whole.
    with open_stream(path) as stream:
        return pa_parquet.ParquetFile(pa.BufferReader(stream.read()))


def _to_texts(column: pa.Array) -> list[str]:
    """Convert the cells of a column to text; a missing value becomes an empty text."""
    if pa.types.is_nested(column.type):
        return ["" if value is None else str(value) for value in column.to_pylist()]
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        # Some types cannot be cast to text, and bytes may not be UTF-8; these columns are converted
        # cell by cell below.
        with contextlib.suppress(pa.ArrowException):
            column = column.cast(pa.string())
    return [_to_text(cell) for cell in column]


def _to_text(cell: pa.Scalar) -> str:
    try:
        value = cell.as_py()
        value = value.decode() if isinstance(value, bytes) else value
    except (ValueError, OverflowError) as error:
        return _CellError(f"a cell cannot be converted to text: {error}")
    return "" if value is None else str(value)
