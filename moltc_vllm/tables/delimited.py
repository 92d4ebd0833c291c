"""CSV and TSV: a header, then rows of delimited cells, which may be quoted."""

from __future__ import annotations

import csv
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from moltc_vllm.tables.streams import Line, first_line, open_stream, read_row_lines
from moltc_vllm.tables.table import EMPTY_LINE, SMILES, Record, Table, TableError

_MAX_CELL_LINES = 50  # a quote that is not closed within this many lines is a stray one
# A single thread keeps the order of the rows, so that Arrow can name a malformed row by number.
_READ_OPTIONS = pa_csv.ReadOptions(use_threads=False)


def open_csv(path: Path, start: bytes) -> Table:
    """Open a CSV file as a table; the delimiter is the most frequent of ``,;`` and tab.

    Args:
        path: Path of the file.
        start: First bytes of the file, with its header.

    Raises:
        TableError: If the file has no header.
    """
    header = first_line(start)
    return _open_delimited(
        path, max(",;\t", key=lambda delimiter: header.count(delimiter.encode()))
    )


def open_tsv(path: Path, start: bytes) -> Table:
    """Open a TSV file as a table.

    Args:
        path: Path of the file.
        start: First bytes of the file; not used.

    Raises:
        TableError: If the file has no header.
    """
    return _open_delimited(path, "\t")


def looks_like_csv(start: bytes) -> bool:
    """Return whether the first line is a header with commas or semicolons, or ``smiles`` alone."""
    header = first_line(start)
    has_delimiter = b"," in header or b";" in header
    return has_delimiter or header.strip().lower().endswith(SMILES.encode())


def looks_like_tsv(start: bytes) -> bool:
    """Return whether the first line is a header with tabs that names a SMILES column."""
    header = first_line(start)
    return b"\t" in header and SMILES.encode() in header.lower()


def _open_delimited(path: Path, delimiter: str) -> Table:
    header = next(_read_from_header(path, delimiter), Record((), "it is empty"))
    if header.error is not None:
        raise TableError(f"{path.name} has no header: {header.error}")
    # pandas writes its index as a column without a name.
    columns = tuple(
        name.strip() or f"column_{number}" for number, name in enumerate(header.cells, start=1)
    )

    def records() -> Iterator[Record]:
        for record in itertools.islice(_read_from_header(path, delimiter), 1, None):
            count = len(record.cells)
            if record.error is None and count != len(columns):
                error = f"the row has {count} columns, the header {len(columns)}"
                yield Record((), error)
            else:
                yield record

    def read_batches(names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        cells_by_name = dict(zip(columns, header.cells, strict=True))
        return _read_batches(path, delimiter, [cells_by_name[name] for name in names])

    return Table(path, columns, records, read_batches)


def _read_batches(
    path: Path, delimiter: str, header_cells: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Read some columns, given by their cells in the header, as text."""
    convert_options = pa_csv.ConvertOptions(
        include_columns=list(header_cells), column_types=dict.fromkeys(header_cells, pa.string())
    )
    parse_options = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with (
        open_stream(path) as stream,
        pa_csv.open_csv(
            stream,
            read_options=_READ_OPTIONS,
            parse_options=parse_options,
            convert_options=convert_options,
        ) as batches,
    ):
        yield from batches


def _read_from_header(path: Path, delimiter: str) -> Iterator[Record]:
    """Read all rows, beginning with the header; skip empty lines before it."""
    records = _parse_rows(read_row_lines(path), delimiter)
    return itertools.dropwhile(lambda record: record.error == EMPTY_LINE, records)


def _parse_rows(lines: Iterable[Line], delimiter: str) -> Iterator[Record]:
    """Parse lines into rows of cells; a quoted cell may span several lines."""
    source = iter(lines)
    lookahead: deque[Line] = deque()
    width: int | None = None  # number of cells in the first row

    def parse_cells(text: str) -> tuple[str, ...]:
        (cells,) = csv.reader([text], delimiter=delimiter, strict=True)
        return tuple(cells)

    def is_row(text: str) -> bool:
        try:
            return width in (None, len(parse_cells(text)))
        except csv.Error:
            return False

    while (line := lookahead.popleft() if lookahead else next(source, None)) is not None:
        if line.error is not None:
            yield Record((), line.error)
            continue
        text = line.text
        if text.count('"') % 2:
            text = _join_quoted_lines(text, lookahead, source, is_row)
        try:
            cells = parse_cells(text)
            width = width or len(cells)
            yield Record(cells)
        except csv.Error as error:
            yield Record((), f"the row cannot be read: {error}")


def _join_quoted_lines(
    text: str, lookahead: deque[Line], source: Iterator[Line], is_row: Callable[[str], bool]
) -> str:
    """Join a line with an open quote and the lines up to the closing quote.

    Two stray quotes look like one quoted cell that spans the rows between them, so the lines are
    joined only if together they form a row.

    Args:
        text: Line with an odd number of quotes.
        lookahead: Lines read ahead from ``source``; lines that are not joined stay in it.
        source: Further lines.
        is_row: Predicate for a text that is a row with the right number of cells.

    Returns:
        The joined lines, or ``text`` if they form no row.
    """
    while len(lookahead) < _MAX_CELL_LINES and (line := next(source, None)) is not None:
        lookahead.append(line)
    joined = text
    for count, line in enumerate(lookahead, 1):
        if line.error not in (None, EMPTY_LINE):
            break
        joined += "\n" + line.text
        if not joined.count('"') % 2 and is_row(joined):
            for _ in range(count):
                lookahead.popleft()
            return joined
    return text
