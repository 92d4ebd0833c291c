"""Tables of molecules: column names, and rows that hold cells or an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from moltc_vllm.utils.errors import one_line

SMILES, NAME = "smiles", "name"
"""Column names in formats that do not name their columns."""

EMPTY_LINE = "the line is empty"
"""Error of a row that is an empty line."""

_MAX_REASON_CHARACTERS = 200


class TableError(ValueError):
    """Error of a whole file that cannot be read; the message is one line and names the file."""


class Record(NamedTuple):
    """A row: its cells in the order of the columns, or the reason why it cannot be read."""

    cells: tuple[str, ...]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A file that is read row by row, from its beginning each time.

    Attributes:
        path: Path of the file.
        columns: Names of the columns.
        records: Function that opens the file and yields every row as text, bad rows with an error.
        read_batches: Function that reads some columns, given by name, as Arrow record batches with
            the types of the file; a malformed row raises. ``None`` for formats without types.
    """

    path: Path
    columns: tuple[str, ...]
    records: Callable[[], Iterator[Record]]
    read_batches: Callable[[Sequence[str]], Iterator[pa.RecordBatch]] | None = None

    def column_index(self, name: str) -> int:
        """Return the index of the only column with this name.

        Raises:
            TableError: If no column or more than one has this name.
        """
        match [index for index, column in enumerate(self.columns) if column == name]:
            case [index]:
                return index
            case []:
                problem = "has no column"
            case _:
                problem = "has more than one column"
        columns = ", ".join(self.columns)
        raise TableError(f"{self.path.name} {problem} {name!r}; there are {columns}")


def unreadable_error(path: Path, error: Exception) -> TableError:
    """Build the error for a file that cannot be read.

    Args:
        path: Path of the file.
        error: Error of the operating system or of Arrow.
    """
    reason = one_line(getattr(error, "strerror", None) or error)[:_MAX_REASON_CHARACTERS]
    return TableError(f"{path.name} cannot be read: {reason}")
