"""Registry of file formats; a new format needs a module that opens it, and an entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moltc_vllm.tables.delimited import looks_like_csv, looks_like_tsv, open_csv, open_tsv
from moltc_vllm.tables.parquet import looks_like_parquet, open_parquet
from moltc_vllm.tables.sdf import looks_like_sdf, open_sdf
from moltc_vllm.tables.smiles_files import open_smiles_file
from moltc_vllm.tables.streams import COMPRESSED_SUFFIXES
from moltc_vllm.tables.table import Table


@dataclass(frozen=True, slots=True)
class FileFormat:
    """A file format that tables are read from.

    Attributes:
        name: Name of the format.
        suffixes: File name suffixes in lower case, without those of compressed files.
        open: Function that opens a table, given the path and the first decompressed bytes.
        matches: Predicate on the first decompressed bytes, for files with another suffix or none.
        is_binary: Whether ``matches`` is reliable enough to override the suffix of a text format.
    """

    name: str
    suffixes: tuple[str, ...]
    open: Callable[[Path, bytes], Table]
    matches: Callable[[bytes], bool]
    is_binary: bool = False


FORMATS = (
    FileFormat("parquet", (".parquet", ".pq"), open_parquet, looks_like_parquet, is_binary=True),
    FileFormat("sdf", (".sdf", ".sd"), open_sdf, looks_like_sdf),
    FileFormat("csv", (".csv",), open_csv, looks_like_csv),
    FileFormat("tsv", (".tsv", ".tab"), open_tsv, looks_like_tsv),
    FileFormat("smi", (".smi", ".smiles", ".ism"), open_smiles_file, lambda _: True),
)
"""All formats, in the order in which a file without a known suffix is matched."""


def detect_format(path: Path, start: bytes) -> FileFormat:
    """Find the format of a file: by a binary signature, by its suffix, or by its first bytes.

    Args:
        path: Path of the file.
        start: First decompressed bytes of the file.
    """
    binary = next((entry for entry in FORMATS if entry.is_binary and entry.matches(start)), None)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = next((text for text in reversed(suffixes) if text not in COMPRESSED_SUFFIXES), "")
    by_suffix = next((entry for entry in FORMATS if suffix in entry.suffixes), None)
    return binary or by_suffix or next(entry for entry in FORMATS if entry.matches(start))


def table_stem(path: Path) -> str:
    """Return a file's name without the suffixes of its compression and its format.

    Args:
        path: Path of the file, e.g. ``pairs.csv.gz``, whose stem is ``pairs``.
    """
    stem = path.name
    known = [*COMPRESSED_SUFFIXES, *(suffix for entry in FORMATS for suffix in entry.suffixes)]
    while (suffix := Path(stem).suffix.lower()) in known:
        stem = stem[: -len(suffix)]
    return stem
