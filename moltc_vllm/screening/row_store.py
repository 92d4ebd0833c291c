"""Rows of a table on disk with random access, in constant memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from moltc_vllm.tables import Record, Table
from moltc_vllm.utils.atomic_files import new_file

_BATCH_ROWS = 4096
_MAX_DECODED = 4  # batches: the block of second molecules, and the batch of the first molecule
_ERROR = "error"
_COLUMN = "cell {}"  # neutral names, because a file's own column may be called "error" as well


class RowStore:
    """Memory-mapped rows of a table, in the table's order.

    Args:
        path: File written by `build_row_store`.

    Attributes:
        columns: Column names of the table.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._file = pa.memory_map(str(path))
        self._reader = pa.ipc.open_file(self._file)
        metadata = self._reader.schema.metadata
        self.columns: tuple[str, ...] = tuple(
            name.decode() for key, name in metadata.items() if key.startswith(b"column ")
        )
        last_batch = self._reader.num_record_batches - 1
        self._decoded: dict[int, list[Record]] = {}
        self._last_missed = -1  # batch of the last access that was not in `_decoded`
        self._rows = (
            last_batch * _BATCH_ROWS + self._reader.get_batch(last_batch).num_rows
            if last_batch >= 0
            else 0
        )

    def __len__(self) -> int:
        return self._rows

    def __reduce__(self) -> tuple[type[RowStore], tuple[Path]]:
        """Pickle the path only; another process opens the file itself."""
        return RowStore, (self._path,)

    def __getitem__(self, index: int) -> Record:
        """Return the row at an index, from 0."""
        if not 0 <= index < self._rows:
            raise IndexError(f"row index {index} is out of range for {self._rows} rows")
        batch_index, offset = divmod(index, _BATCH_ROWS)
        if batch_index not in self._decoded:
            # In a random order the next access is probably to another batch, so a whole batch is
            # decoded only when two successive accesses miss it.
            if batch_index != self._last_missed:
                self._last_missed = batch_index
                return self._decode(self._reader.get_batch(batch_index).slice(offset, 1))[0]
            if len(self._decoded) == _MAX_DECODED:
                del self._decoded[next(iter(self._decoded))]  # evict the oldest
            self._decoded[batch_index] = self._decode(self._reader.get_batch(batch_index))
        return self._decoded[batch_index][offset]

    @property
    def unreadable_rows(self) -> int:
        """Number of rows that hold an error in place of cells."""
        batches = range(self._reader.num_record_batches)
        columns = (self._reader.get_batch(batch_index).column(0) for batch_index in batches)
        return sum(len(column) - column.null_count for column in columns)

    @staticmethod
    def _decode(batch: pa.RecordBatch) -> list[Record]:
        errors, *cells = (column.to_pylist() for column in batch.columns)
        return [
            Record(row) if error is None else Record((), error)
            for error, row in zip(errors, zip(*cells, strict=True), strict=True)
        ]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def build_row_store(
    table: Table, path: Path, on_rows: Callable[[int], None] = lambda rows: None
) -> None:
    """Copy a table's rows into a row store, atomically.

    Args:
        table: Table to copy, in a single pass.
        path: File to write.
        on_rows: Callback that receives the number of rows copied so far.

    Raises:
        TableError: If the table cannot be read.
    """
    names = [_COLUMN.format(index) for index in range(len(table.columns))]
    schema = pa.schema(
        [(name, pa.string()) for name in (_ERROR, *names)],
        metadata={f"column {index}": name for index, name in enumerate(table.columns)},
    )
    rows = 0
    records = table.records()
    no_cells = (None,) * len(names)
    with (
        new_file(path) as partial,
        pa.OSFile(str(partial), "wb") as file,
        pa.ipc.new_file(file, schema) as writer,
    ):
        while batch := list(itertools.islice(records, _BATCH_ROWS)):
            columns = zip(*((r.error, *(r.cells or no_cells)) for r in batch), strict=True)
            writer.write_batch(
                pa.record_batch([pa.array(cells, pa.string()) for cells in columns], schema=schema)
            )
            rows += len(batch)
            on_rows(rows)
