"""Rows on disk that can be read from any place: a table of any length in constant memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from moltc_vllm.tables.table_readers import Record, Table
from moltc_vllm.utils.atomic_files import new_file

_BATCH = 4096
_DECODED = 4  # batches as Python objects: a block of second molecules, and the first one at hand
_ERROR = "error"
_COLUMN = "cell {}"  # a file's own names may be anything


class RowStore:
    """A table's rows, in their order.

    Args:
        path: Of the file that `build_row_store` wrote.

    Attributes:
        columns: Their names.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._file = pa.memory_map(str(path))
        self._reader = pa.ipc.open_file(self._file)
        metadata = self._reader.schema.metadata
        self.columns: tuple[str, ...] = tuple(
            name.decode() for key, name in metadata.items() if key.startswith(b"column ")
        )
        last = self._reader.num_record_batches - 1
        self._decoded: dict[int, list[Record]] = {}
        self._wanted = -1  # the batch of the last row that was not decoded
        self._rows = last * _BATCH + self._reader.get_batch(last).num_rows if last >= 0 else 0

    def __len__(self) -> int:
        return self._rows

    def __reduce__(self) -> tuple[type[RowStore], tuple[Path]]:
        """For other processes, which open the file themselves."""
        return RowStore, (self._path,)

    def __getitem__(self, place: int) -> Record:
        """The row at a place, from 0."""
        if not 0 <= place < self._rows:
            raise IndexError(f"there is no row {place} among {self._rows}")
        number, place = divmod(place, _BATCH)
        if number not in self._decoded:
            if number != self._wanted:  # a single row of a random order, perhaps
                self._wanted = number
                return self._decode(self._reader.get_batch(number).slice(place, 1))[0]
            if len(self._decoded) == _DECODED:
                del self._decoded[next(iter(self._decoded))]  # the oldest
            self._decoded[number] = self._decode(self._reader.get_batch(number))
        return self._decoded[number][place]

    @property
    def unread(self) -> int:
        """PairingMode many rows have an error in place of cells."""
        batches = range(self._reader.num_record_batches)
        columns = (self._reader.get_batch(number).column(0) for number in batches)
        return sum(len(column) - column.null_count for column in columns)

    @staticmethod
    def _decode(batch: pa.RecordBatch) -> list[Record]:
        errors, *cells = (column.to_pylist() for column in batch.columns)
        return [
            Record(row) if error is None else Record((), error)
            for error, row in zip(errors, zip(*cells, strict=True), strict=True)
        ]

    def close(self) -> None:
        """Let the file go."""
        self._file.close()


def build_row_store(table: Table, path: Path, tell: Callable[[int], None] = lambda _: None) -> None:
    """Write a table's rows, completely or not at all.

    Args:
        table: Is read once.
        path: Of the new file.
        tell: Is told how many rows are done.

    Raises:
        TableError: If the table cannot be read.
    """
    names = [_COLUMN.format(place) for place in range(len(table.columns))]
    schema = pa.schema(
        [(name, pa.string()) for name in (_ERROR, *names)],
        metadata={f"column {place}": name for place, name in enumerate(table.columns)},
    )
    done = 0
    records = table.records()
    none = (None,) * len(names)
    with (
        new_file(path) as partial,
        pa.OSFile(str(partial), "wb") as file,
        pa.ipc.new_file(file, schema) as writer,
    ):
        while batch := list(itertools.islice(records, _BATCH)):
            columns = zip(*((r.error, *(r.cells or none)) for r in batch), strict=True)
            writer.write_batch(
                pa.record_batch([pa.array(one, pa.string()) for one in columns], schema=schema)
            )
            done += len(batch)
            tell(done)
