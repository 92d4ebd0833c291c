"""Input files of the screening benchmarks, and comparison of the rows of two screens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pa_parquet
from common import DATA, MOLECULE_FILES, read_smiles

ResultRow = dict[str, Any]


def write_libraries(folder: Path, first: int, second: int) -> list[str]:
    """Write files of approved drugs and library molecules, repeating molecules if necessary.

    Args:
        folder: Folder for the files.
        first: Number of drugs.
        second: Number of library molecules.

    Returns:
        Options of ``moltc screen`` that name the files.
    """
    options = []
    for side, name, count in (("left", "approved", first), ("right", "zinc250k", second)):
        smiles = itertools.cycle(read_smiles(DATA / MOLECULE_FILES[name]))
        path = folder / f"{side}.smi"
        path.write_text("".join(f"{line}\n" for line in itertools.islice(smiles, count)))
        options += [f"--{side}", str(path)]
    return options


def read_rows(folder: Path) -> list[ResultRow]:
    """Read all rows of a screen's parts in their order."""
    tables = (pa_parquet.read_table(path) for path in sorted(folder.glob("part-*.parquet")))
    return [row for table in tables for row in table.to_pylist()]


def row_counts(reference: Sequence[ResultRow], rows: Sequence[ResultRow]) -> dict[str, Any]:
    """Count rows, check that each input row occurs once, and count rows equal to the reference.

    Args:
        reference: Rows of an undisturbed screen.
        rows: Rows of the screen to check.
    """
    row_numbers = [row["row"] for row in rows]
    return {
        "rows": len(rows),
        "once_each": sorted(row_numbers) == list(range(1, len(row_numbers) + 1)),
        "same": sum(first == second for first, second in zip(reference, rows, strict=True)),
    }


def equal_up_to_rounding(first: ResultRow, second: ResultRow) -> bool:
    """Compare two rows; floats may differ by 0.1 %, since they depend on the batches of the run."""
    return first.keys() == second.keys() and all(
        abs(value - second[name]) <= 1e-3 * max(1.0, abs(value))
        if isinstance(value, float) and isinstance(second[name], float)
        else value == second[name]
        for name, value in first.items()
    )


def max_difference(first: ResultRow, second: ResultRow) -> float:
    """Return the largest absolute difference between the floats of two rows."""
    return max(
        abs(first[name] - second[name])
        for name in first
        if isinstance(first[name], float) and isinstance(second[name], float)
    )
