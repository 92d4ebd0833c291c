"""Tables of molecules as people have them: every row comes out, with its cells or with a reason.

CSV, TSV, SMILES files, SDF and Parquet, plain or packed by gzip or zstd. Nothing here is held in
memory but the row at hand.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from moltc_vllm.chem import MoleculeError, molblock_to_smiles

Format = Literal["csv", "tsv", "smi", "sdf", "parquet"]

LONGEST_LINE = 1 << 17
"""Bytes; longer ones are no rows of molecules."""

_CHUNK = 1 << 20
_LARGEST_BLOCK = 1 << 22
_QUOTED_LINES = 50  # a quote that is not closed by then was never meant to be one
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_PARQUET = b"PAR1"
_ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".smi": "smi",
    ".smiles": "smi",
    ".ism": "smi",
    ".sdf": "sdf",
    ".sd": "sdf",
    ".parquet": "parquet",
    ".pq": "parquet",
}
EMPTY = "the line is empty"
SMILES, NAME = "smiles", "name"
"""Columns of files whose columns have no names of their own."""


class TableError(ValueError):
    """A file as a whole cannot be read; the message is one line and names it."""


class Record(NamedTuple):
    """A row: its cells in the order of the columns, or why it has none."""

    cells: tuple[str, ...]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A file that is read row by row, from its beginning each time.

    Attributes:
        path: Of the file.
        columns: Their names.
        records: Opens it.
    """

    path: Path
    columns: tuple[str, ...]
    records: Callable[[], Iterator[Record]]


def open_table(path: Path, kind: Format | None = None) -> Table:
    """Find out what a file is.

    Args:
        path: Of the file.
        kind: What it is; default: as its name ends, otherwise as its first bytes are.

    Raises:
        TableError: If it cannot be read, or its columns have no or equal names.
    """
    try:
        start = _start(path)
        kind = kind or _kind_of(path, start)
        match kind:
            case "parquet":
                table = _parquet(path)
            case "sdf":
                table = _sdf(path)
            case "smi":
                table = _smi(path)
            case _:
                table = _delimited(path, "\t" if kind == "tsv" else _delimiter(start))
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    twice = next((name for name in table.columns if table.columns.count(name) > 1), None)
    if twice is not None:
        raise TableError(f"{path.name} has more than one column {twice!r}")
    return replace(table, records=lambda: _named(table))


def _named(table: Table) -> Iterator[Record]:
    """The table's rows; errors of reading get the file's name."""
    try:
        yield from table.records()
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(table.path, error) from error


def _unreadable(path: Path, error: Exception) -> TableError:
    reason = getattr(error, "strerror", None) or str(error)
    return TableError(f"{path.name} cannot be read: {' '.join(reason.split())[:200]}")


def _kind_of(path: Path, start: bytes) -> Format:
    endings = [one.lower() for one in path.suffixes]
    ending = next((one for one in reversed(endings) if one not in (".gz", ".zst", ".zstd")), "")
    if ending in _ENDINGS:
        return _ENDINGS[ending]
    if start.startswith(_PARQUET):
        return "parquet"
    if b"M  END" in start or b"V2000" in start or b"V3000" in start:
        return "sdf"
    first = _first_line(start)
    if b"," in first or b";" in first or first.strip().lower().endswith(SMILES.encode()):
        return "csv"
    return "tsv" if b"\t" in first and b"smiles" in first.lower() else "smi"


def _first_line(start: bytes) -> bytes:
    """The first line that has something in it."""
    return start.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")[0]


def _start(path: Path) -> bytes:
    with _stream(path) as stream:
        return bytes(stream.read(1 << 16))


def _stream(path: Path) -> Any:
    """The unpacked bytes of a file."""
    with path.open("rb") as file:
        magic = file.read(4)
    packed = next((name for mark, name in _PACKED.items() if magic.startswith(mark)), None)
    return pa.CompressedInputStream(str(path), packed) if packed else path.open("rb")


# Lines


class _Line(NamedTuple):
    text: str
    error: str | None = None


def _lines(path: Path) -> Iterator[_Line]:
    """Lines without their ends and without a byte-order mark; what is no text is said so.

    An empty line is a row without anything in it, unless there are only such up to the end.
    """
    empty = 0
    for line in _all_lines(path):
        if line.error is None and not line.text.strip():
            empty += 1
            continue
        for _ in range(empty):
            yield _Line("", EMPTY)
        empty = 0
        yield line


def _all_lines(path: Path) -> Iterator[_Line]:
    with _stream(path) as stream:
        for number, (line, length) in enumerate(_raw_lines(stream)):
            if number == 0:
                if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise TableError(f"{path.name} is UTF-16 text; it has to be UTF-8")
                line = line.removeprefix(codecs.BOM_UTF8)
            if length > LONGEST_LINE:
                yield _Line("", f"the line has {length:,} bytes, more than {LONGEST_LINE:,}")
                continue
            try:
                yield _Line(line.decode())
            except UnicodeDecodeError as error:
                byte = line[error.start]
                yield _Line("", f"byte {error.start + 1} of the line is {byte:#04x}, not UTF-8")


def _raw_lines(stream: Any) -> Iterator[tuple[bytes, int]]:
    """Each line and its length; of one that is too long only the beginning."""
    kept, length = b"", 0
    while chunk := stream.read(_CHUNK):
        *ended, rest = bytes(chunk).split(b"\n")
        for piece in ended:
            line = kept + piece if length <= LONGEST_LINE else kept
            yield line.removesuffix(b"\r"), length + len(piece)
            kept, length = b"", 0
        if length <= LONGEST_LINE:
            kept += rest
        length += len(rest)
    if length:
        yield kept.removesuffix(b"\r"), length


# CSV and TSV


def _delimiter(start: bytes) -> str:
    header = _first_line(start)
    return max(",;\t", key=lambda one: header.count(one.encode()))


def _delimited(path: Path, delimiter: str) -> Table:
    header = next(_from_header(path, delimiter), Record((), "it is empty"))
    if header.error is not None:
        raise TableError(f"{path.name} has no header: {header.error}")
    # pandas writes its index under no name.
    columns = tuple(
        name.strip() or f"column_{place}" for place, name in enumerate(header.cells, start=1)
    )

    def records() -> Iterator[Record]:
        for row in itertools.islice(_from_header(path, delimiter), 1, None):
            if row.error is None and len(row.cells) != len(columns):
                found = len(row.cells)
                yield Record((), f"the row has {found} columns, the header {len(columns)}")
            else:
                yield row

    return Table(path, columns, records)


def _from_header(path: Path, delimiter: str) -> Iterator[Record]:
    """All rows, without empty lines in front of them."""
    return itertools.dropwhile(lambda row: row.error == EMPTY, _rows(_lines(path), delimiter))


def _rows(lines: Iterable[_Line], delimiter: str) -> Iterator[Record]:
    """Rows of cells. A quoted cell may go on over some lines."""
    source = iter(lines)
    ahead: deque[_Line] = deque()
    width: int | None = None  # as the first row has it

    def cells_of(text: str) -> tuple[str, ...]:
        (cells,) = csv.reader([text], delimiter=delimiter, strict=True)
        return tuple(cells)

    def is_row(text: str) -> bool:
        try:
            return width in (None, len(cells_of(text)))
        except csv.Error:
            return False

    while (line := ahead.popleft() if ahead else next(source, None)) is not None:
        if line.error is not None:
            yield Record((), line.error)
            continue
        text = line.text
        if text.count('"') % 2:
            text = _closed(text, ahead, source, is_row)
        try:
            cells = cells_of(text)
            width = width or len(cells)
            yield Record(cells)
        except csv.Error as error:
            yield Record((), f"the row cannot be read: {error}")


def _closed(
    text: str, ahead: deque[_Line], source: Iterator[_Line], is_row: Callable[[str], bool]
) -> str:
    """A line with those that its open quote reaches over; alone, if they make no row together.

    Two quotes that were both forgotten look like one that is closed lines later. Lines that were
    looked at and not needed are put into ``ahead``.
    """
    while len(ahead) < _QUOTED_LINES and (line := next(source, None)) is not None:
        ahead.append(line)
    whole = text
    for count, line in enumerate(ahead, 1):
        if line.error not in (None, EMPTY):
            break
        whole += "\n" + line.text
        if not whole.count('"') % 2 and is_row(whole):
            for _ in range(count):
                ahead.popleft()
            return whole
    return text


# SMILES files


def _smi(path: Path) -> Table:
    """A SMILES and a name on each line, without a header."""

    def records() -> Iterator[Record]:
        for line in _lines(path):
            if line.error is not None:
                yield Record((), line.error)
            else:
                smiles, *name = line.text.split(None, 1)
                yield Record((smiles, name[0].strip() if name else ""))

    return Table(path, (SMILES, NAME), records)


# SDF


def _sdf(path: Path) -> Table:
    """Molecules as blocks; their data fields are columns."""
    # A block's own name and structure go before fields that are called so.
    fields = dict.fromkeys(filter(None, (_field(line.text) for line in _all_lines(path))))
    others = [name for name in fields if name not in (SMILES, NAME)]

    def records() -> Iterator[Record]:
        for block in _blocks(_all_lines(path)):
            yield _molecule(block, others)

    return Table(path, (SMILES, NAME, *others), records)


def _blocks(lines: Iterable[_Line]) -> Iterator[list[_Line]]:
    block: list[_Line] = []
    size = 0
    for line in lines:
        size += len(line.text)
        if line.text.rstrip() == "$$$$":
            yield block
            block, size = [], 0
        elif size <= _LARGEST_BLOCK:
            block.append(line)
        else:
            block = [_Line("", f"the block has more than {_LARGEST_BLOCK:,} characters")]
    if any(line.text.strip() or line.error for line in block):  # the last end may be missing
        yield block


def _molecule(block: Sequence[_Line], fields: Sequence[str]) -> Record:
    wrong = next((line.error for line in block if line.error is not None), None)
    if wrong is not None:
        return Record((), wrong)
    texts = [line.text for line in block]
    end = next((place for place, text in enumerate(texts) if text.startswith("M  END")), None)
    if end is None:
        return Record((), "the molecule block has no end (M  END)")
    try:
        smiles = molblock_to_smiles("\n".join(texts[: end + 1]))
    except MoleculeError as error:
        return Record((), str(error))
    found: dict[str, list[str]] = {}
    name: str | None = None
    for text in texts[end + 1 :]:
        if header := _field(text):
            name = header
        elif name is not None and text.strip():
            found.setdefault(name, []).append(text)
    cells = ("\n".join(found.get(field, ())) for field in fields)
    return Record((smiles, texts[0].strip(), *cells))


def _field(line: str) -> str | None:
    """The name in a data header: ``>  <NAME>``."""
    if not line.startswith(">") or "<" not in line:
        return None
    return line.partition("<")[2].partition(">")[0].strip() or None


# Parquet


class _NoText(str):
    """Why a cell is no text."""


def _texts(column: pa.Array) -> list[str]:
    """A column's cells as text; what is missing is empty."""
    if pa.types.is_nested(column.type):
        return ["" if one is None else str(one) for one in column.to_pylist()]
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        with contextlib.suppress(pa.ArrowException):  # bytes may be no text, some types have none
            column = column.cast(pa.string())
    texts = []
    for cell in column:
        try:
            value = cell.as_py()
            value = value.decode() if isinstance(value, bytes) else value
            texts.append("" if value is None else str(value))
        except (ValueError, OverflowError) as error:
            texts.append(_NoText(f"a cell is no text: {error}"))
    return texts


def _parquet(path: Path) -> Table:
    with pa_parquet.ParquetFile(path) as file:
        columns = tuple(file.schema_arrow.names)

    def records() -> Iterator[Record]:
        with pa_parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4096, use_threads=False):
                for row in zip(*map(_texts, batch.columns), strict=True):
                    wrong = next((cell for cell in row if isinstance(cell, _NoText)), None)
                    yield Record((), wrong) if wrong is not None else Record(row)

    return Table(path, columns, records)
