"""Bytes and text lines of a file, plain or compressed by gzip or zstd, in constant memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from moltc_vllm.tables.table import EMPTY_LINE, TableError

MAX_LINE_BYTES = 1 << 17
"""Longer lines are not read: no molecule is that long, and memory use stays constant."""

COMPRESSED_SUFFIXES = (".gz", ".zst", ".zstd")
"""File name suffixes of compressed files, which do not identify the format inside."""

_CODECS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # by the first bytes of a file
_CHUNK_BYTES = 1 << 20
_START_BYTES = 1 << 16


class Line(NamedTuple):
    """Text of a line without its end, or the reason why it cannot be read."""

    text: str
    error: str | None = None


def find_codec(path: Path) -> str | None:
    """Return the compression of a file by its first bytes; ``None`` for a plain file.

    Raises:
        OSError: If the file cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(4)
    return next((codec for magic, codec in _CODECS.items() if start.startswith(magic)), None)


def open_stream(path: Path) -> pa.NativeFile:
    """Open the decompressed bytes of a file.

    Raises:
        OSError: If the file cannot be opened.
    """
    codec = find_codec(path)
    return pa.CompressedInputStream(str(path), codec) if codec else pa.OSFile(str(path))


def read_start(path: Path) -> bytes:
    """Read the first 64 KiB of the decompressed bytes.

    Raises:
        OSError: If the file cannot be read.
    """
    with open_stream(path) as stream:
        return bytes(stream.read(_START_BYTES))


def first_line(start: bytes) -> bytes:
    """Return the first line that is not empty, without a byte-order mark."""
    return start.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")[0]


def read_lines(path: Path) -> Iterator[Line]:
    """Read the lines of a UTF-8 text, without their ends and without a byte-order mark.

    Yields:
        One `Line` per line of the file. A line that is too long or not UTF-8 has an error.

    Raises:
        TableError: If the text is UTF-16.
        OSError: If the file cannot be read.
    """
    with open_stream(path) as stream:
        for index, (line, length) in enumerate(_split_lines(stream)):
            if index == 0:
                if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise TableError(f"{path.name} is UTF-16 text; convert it to UTF-8")
                line = line.removeprefix(codecs.BOM_UTF8)
            if length > MAX_LINE_BYTES:
                error = f"the line has {length:,} bytes, more than {MAX_LINE_BYTES:,}"
                yield Line("", error)
                continue
            try:
                yield Line(line.decode())
            except UnicodeDecodeError as error:
                byte = line[error.start]
                yield Line("", f"byte {error.start + 1} of the line is {byte:#04x}, not UTF-8")


def read_row_lines(path: Path) -> Iterator[Line]:
    """Read the lines of a format with one row per line.

    Yields:
        The lines of `read_lines`; an empty line has the error `EMPTY_LINE`. Empty lines at the end
        of the file are not rows and are dropped.
    """
    empty_lines = 0
    for line in read_lines(path):
        if line.error is None and not line.text.strip():
            empty_lines += 1
            continue
        for _ in range(empty_lines):
            yield Line("", EMPTY_LINE)
        empty_lines = 0
        yield line


def _split_lines(stream: pa.NativeFile) -> Iterator[tuple[bytes, int]]:
    """Yield each line and its length in bytes; a line that is too long is truncated."""
    kept, length = b"", 0
    while chunk := stream.read(_CHUNK_BYTES):
        *ended, rest = bytes(chunk).split(b"\n")
        for piece in ended:
            line = kept + piece if length <= MAX_LINE_BYTES else kept
            yield line.removesuffix(b"\r"), length + len(piece)
            kept, length = b"", 0
        if length <= MAX_LINE_BYTES:
            kept += rest
        length += len(rest)
    if length:
        yield kept.removesuffix(b"\r"), length
