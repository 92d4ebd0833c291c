"""Some columns of a CSV or Parquet file, row by row.

What a file is, its first bytes say, not its name. Everything in a CSV file is text; a Parquet file
has types of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from moltc_vllm.utils import atomic_files as files

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
# One thread: the order of rows is kept and a malformed row is named by its number.
_READ = pa_csv.ReadOptions(use_threads=False)
_PARSE = pa_csv.ParseOptions(newlines_in_values=True)


class DataError(ValueError):
    """A file cannot be evaluated on; the message is one line."""


def sha256(path: Path) -> str:
    """Checksum of a file as it lies on the disk.

    Raises:
        DataError: If there is no such file.
    """
    with _named(path):
        return files.sha256(path)


def column_names(path: Path) -> list[str]:
    """All columns of a file, in order.

    Raises:
        DataError: If it cannot be read.
    """
    with _named(path):
        source = _open(path)
        if isinstance(source, pa_parquet.ParquetFile):
            return list(source.schema_arrow.names)
        return list(pa_csv.open_csv(source, read_options=_READ, parse_options=_PARSE).schema.names)


def require_columns(path: Path, wanted: Sequence[str]) -> list[str]:
    """All columns of a file that has the wanted ones, each once.

    Raises:
        DataError: Naming the one that is missing, and what there is.
    """
    found = column_names(path)
    for name in wanted:
        if found.count(name) != 1:
            problem = "has no column" if name not in found else "has more than one column"
            raise DataError(f"{path.name} {problem} {name!r}; there are {', '.join(found)}")
    return found


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows with these columns; an empty cell is an empty text, in Parquet also ``None``.

    Raises:
        DataError: If the file is damaged.
    """
    with _named(path):
        source = _open(path)
        if isinstance(source, pa_parquet.ParquetFile):
            batches = source.iter_batches(columns=list(columns), use_threads=False)
        else:
            convert = pa_csv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict.fromkeys(columns, pa.string()),
            )
            batches = pa_csv.open_csv(
                source, read_options=_READ, parse_options=_PARSE, convert_options=convert
            )
        for batch in batches:
            yield from batch.to_pylist()


def _open(path: Path) -> Any:
    """A Parquet file, or a stream of a CSV file's text."""
    with path.open("rb") as file:
        compressed = file.read(len(_GZIP)) == _GZIP
    if _stream(path, compressed).read(len(_PARQUET)) != _PARQUET:
        return _stream(path, compressed)
    # Parquet is read from its end: what gzip holds has to be unpacked first.
    source = pa.BufferReader(_stream(path, True).read()) if compressed else path
    return pa_parquet.ParquetFile(source)


def _stream(path: Path, compressed: bool) -> Any:
    return pa.CompressedInputStream(str(path), "gzip") if compressed else pa.OSFile(str(path))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of reading get the file's name, on one line."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path.name} cannot be read: {_one_line(reason)}") from error
    except pa.ArrowException as error:
        raise DataError(f"{path.name} cannot be read: {_one_line(str(error))}") from error


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
