"""Libraries of unlabeled molecules, from which pretraining draws random pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from moltc_vllm.data.files import read_rows
from moltc_vllm.data.molecule_properties import CAPTION_FILE, MOLECULE_PROPERTIES

LIBRARIES = (
    "screen_enamine50k.smi.gz",
    "screen_zinc250k_29k.smi.gz",
    "screen_zinc_natural_products_50k.smi.gz",
    "screen_approved_drugs.csv.gz",
    CAPTION_FILE,
    *dict.fromkeys(measured.file for measured in MOLECULE_PROPERTIES),
)
"""Files in the data folder: SMILES files, and CSV files with a column ``smiles``."""


def read_libraries(folder: Path) -> list[str]:
    """Read all molecules of the libraries without repetitions, in the order of the files.

    Args:
        folder: Folder of the data files.

    Raises:
        DataError: If a file cannot be read.
    """
    return list(
        dict.fromkeys(smiles for file in LIBRARIES for smiles in read_molecules(folder / file))
    )


def read_molecules(path: Path) -> Iterator[str]:
    """Read the SMILES of one file; empty ones are skipped.

    Raises:
        DataError: If the file cannot be read, or has no column ``smiles``.
    """
    for (smiles,) in read_rows(path, ("smiles",)):
        if smiles:
            yield smiles
