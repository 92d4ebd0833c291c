"""SMILES files: a SMILES and an optional name on each line, without a header."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from moltc_vllm.tables.streams import open_stream, read_row_lines
from moltc_vllm.tables.table import NAME, SMILES, Record, Table

_LINE = "line"
# Arrow splits a file into lines only as the rows of a CSV file: with a single column, which needs a
# delimiter that no line contains.
_NO_DELIMITER = pa_csv.ParseOptions(delimiter="\x1f", quote_char=False)
_READ_OPTIONS = pa_csv.ReadOptions(column_names=[_LINE], use_threads=False)
_CONVERT_OPTIONS = pa_csv.ConvertOptions(column_types={_LINE: pa.string()})


def open_smiles_file(path: Path, start: bytes) -> Table:
    """Open a SMILES file as a table with the columns ``smiles`` and ``name``.

    Args:
        path: Path of the file.
        start: First bytes of the file; not used.
    """

    def records() -> Iterator[Record]:
        for line, error in read_row_lines(path):
            if error is not None:
                yield Record((), error)
            else:
                smiles, *name = line.split(None, 1)
                yield Record((smiles, name[0].strip() if name else ""))

    def read_batches(names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with (
            open_stream(path) as stream,
            pa_csv.open_csv(
                stream,
                read_options=_READ_OPTIONS,
                parse_options=_NO_DELIMITER,
                convert_options=_CONVERT_OPTIONS,
            ) as batches,
        ):
            for batch in batches:
                yield _split_batch(batch.column(0)).select(list(names))

    return Table(path, (SMILES, NAME), records, read_batches)


def _split_batch(lines: pa.Array) -> pa.RecordBatch:
    """Split lines into SMILES and names."""
    words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(lines), max_splits=1)
    smiles = pc.list_element(words, 0)
    names = pc.binary_join(pc.list_slice(words, 1, 2), "")  # empty for a line with one word
    batch = pa.record_batch([smiles, names], [SMILES, NAME])
    return batch.filter(pc.not_equal(smiles, ""))  # lines of white space only
