"""Input tables of a screen that are Python objects: they are written to temporary files."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pa_parquet


class TemporaryTables:
    """Temporary folders, deleted together with this object."""

    def __init__(self) -> None:
        self._folders: list[tempfile.TemporaryDirectory[str]] = []

    def new_folder(self) -> Path:
        """Create a folder."""
        folder = tempfile.TemporaryDirectory(prefix="moltc-screen-")
        self._folders.append(folder)
        return Path(folder.name)

    def path_of(
        self,
        name: str,
        molecules: Path | str | Sequence[Any] | pa.Table | None,
        columns: Sequence[str],
    ) -> Path | None:
        """Return the path of a file of molecules; Python objects are written to a new file.

        Args:
            name: Name of a new file, without its suffix.
            molecules: File, list of molecules or of pairs, or table.
            columns: Names of the columns of a list.
        """
        if molecules is None:
            return None
        if isinstance(molecules, Path | str):
            return Path(molecules)
        path = self.new_folder() / f"{name}.parquet"
        pa_parquet.write_table(_as_table(molecules, columns), path)
        return path


def _as_table(molecules: Sequence[Any] | pa.Table, columns: Sequence[str]) -> pa.Table:
    if isinstance(molecules, pa.Table):
        return molecules
    rows = [smiles_or_none(item) for item in molecules]
    for index, row in enumerate(rows):
        if len(row) != len(columns):
            raise ValueError(f"row {index} must have {len(columns)} SMILES, not {row!r}")
    cells = zip(*rows, strict=True) if rows else [()] * len(columns)
    return pa.table(
        {name: pa.array(column, pa.string()) for name, column in zip(columns, cells, strict=True)}
    )


def smiles_or_none(item: Any) -> tuple[str | None, ...]:
    """Return the molecules of a row; ``None`` for missing ones, such as the NaN of a data frame."""
    cells = item if isinstance(item, tuple | list) else (item,)
    return tuple(cell if isinstance(cell, str) else None for cell in cells)
