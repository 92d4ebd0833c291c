"""Molecules of which nothing need be known: the libraries that pretraining draws pairs from."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from moltc_vllm.data.files import DataError, read_rows, require_columns
from moltc_vllm.data.molecule_properties import CAPTION_FILE, MOLECULE_PROPERTIES

LIBRARIES = (
    "screen_enamine50k.smi.gz",
    "screen_zinc250k_29k.smi.gz",
    "screen_zinc_natural_products_50k.smi.gz",
    "screen_approved_drugs.csv.gz",
    CAPTION_FILE,
    *dict.fromkeys(one.file for one in MOLECULE_PROPERTIES),
)
"""Files of molecules in the data folder; a CSV has them in its column ``smiles``."""


def read_libraries(folder: Path) -> list[str]:
    """All molecules of the libraries, each once, in the order of the files.

    Raises:
        DataError: If a file cannot be read.
    """
    return list(dict.fromkeys(one for file in LIBRARIES for one in read_molecules(folder / file)))


def read_molecules(path: Path) -> Iterator[str]:
    """The molecules of one file: a CSV with a column ``smiles``, or one SMILES a line.

    Raises:
        DataError: If it cannot be read.
    """
    if ".smi" not in path.suffixes:
        require_columns(path, ("smiles",))
        yield from (row["smiles"] for row in read_rows(path, ("smiles",)) if row["smiles"])
        return
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                if words := line.split():
                    yield str(words[0])
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise DataError(f"{path.name} cannot be read: {reason}") from error
