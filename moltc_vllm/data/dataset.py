"""A data set: molecules and what was measured of them, from a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moltc_vllm.data.columns import COLUMNS, SPLIT, Columns, Glossary
from moltc_vllm.data.files import DataError, read_rows, require_columns, sha256
from moltc_vllm.tasks import Choice, Number, Task, Terms

Target = int | float | str | tuple[str, ...]
"""A label's id, a number, a text, or terms, as the kind of the task's answer has it."""

_LARGEST = 1e12  # as many digits as an answer may have


@dataclass(frozen=True, slots=True)
class Row:
    """Some molecules and what was measured of them; ``None``: nothing was.

    ``number`` is its place in the file, from 1; the header does not count.
    """

    number: int
    molecules: tuple[str, ...]
    target: Target | None


@dataclass(frozen=True, slots=True)
class Dataset:
    """What is to be evaluated on.

    Attributes:
        name: Of the file.
        sha256: Of the file as it lies on the disk.
        columns: Where in the file it was found.
        split: The only part that is here; ``None``: all.
        in_split: How many rows that part has.
        measured: How many of them have a target.
        rows: Those of the measured ones that are to be asked, in the order of the file.
        not_measured: The rows without a target; none if a limit left out some that have one.
    """

    name: str
    sha256: str
    columns: Columns
    split: str | None
    in_split: int
    measured: int
    rows: tuple[Row, ...]
    not_measured: tuple[Row, ...]


def read_dataset(
    path: Path, task: Task, *, split: str | None = None, limit: int | None = None, seed: int = 0
) -> Dataset:
    """Read a task's data.

    Args:
        path: CSV or Parquet, gzip or not.
        task: Says which columns are needed; see `COLUMNS`.
        split: Only rows with this in the column ``split``.
        limit: Draw so many of the measured rows at random; with the same seed, those of a smaller
            limit are among those of a larger one.
        seed: Of the draw.

    Raises:
        DataError: If the file cannot be read, lacks a column or the split, or has a target that
            is none of the task's.
    """
    measured: list[Row] = []
    not_measured: list[Row] = []
    splits = set()
    for part, row in _rows(path, task, only=split, with_split=split is not None):
        splits.add(part)
        if row is not None:
            (not_measured if row.target is None else measured).append(row)
    if split is not None and split not in splits:
        present = ", ".join(sorted(filter(None, splits))) or "none"
        raise DataError(f"{path.name} has no split {split!r}; there are {present}")
    drawn, in_split = measured, len(measured) + len(not_measured)
    if limit is not None and limit < len(measured):
        drawn, not_measured = draw_rows(measured, limit, seed), []
    return Dataset(
        path.name,
        sha256(path),
        COLUMNS[task.name],
        split,
        in_split,
        len(measured),
        tuple(drawn),
        tuple(not_measured),
    )


def draw_rows(rows: Sequence[Row], limit: int | None, seed: int) -> list[Row]:
    """So many rows at random, in their order; those of a smaller limit are among a larger one's.

    Args:
        rows: To draw from.
        limit: At most so many; ``None``: all.
        seed: Of the draw.
    """
    if limit is None or limit >= len(rows):
        return list(rows)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:limit]
    return [rows[place] for place in sorted(chosen)]


def written(task: Task, row: Row, source: str) -> str:
    """The task's text about what was measured.

    Args:
        task: What is asked.
        row: With a target.
        source: Name of the data set, for the error.

    Raises:
        DataError: If the task cannot say it, as of a number outside its bounds.
    """
    try:
        return task.write(row.target)
    except ValueError as error:
        pair = ", ".join(row.molecules)
        raise DataError(f"{source}, row {row.number} ({pair}): {error}") from error


def read_split_rows(path: Path, task: Task) -> Iterator[tuple[str, Row]]:
    """Every row of a task's data with its split, in the order of the file.

    Raises:
        DataError: As `read_dataset`.
    """
    for split, row in _rows(path, task, only=None, with_split=True):
        if row is not None:
            yield split, row


def _rows(
    path: Path, task: Task, *, only: str | None, with_split: bool
) -> Iterator[tuple[str, Row | None]]:
    """Split and row of each line; no row where the split is another than the only one wanted."""
    columns = COLUMNS.get(task.name)
    if columns is None:
        raise DataError(f"task {task.name!r} has no measured answers; {', '.join(COLUMNS)} have")
    wanted = [*columns.molecules, columns.target, *([SPLIT] if with_split else [])]
    require_columns(path, wanted)
    terms = _terms(path, columns.glossary) if columns.glossary else {}
    for number, cells in enumerate(read_rows(path, wanted), 1):
        cell = cells[SPLIT] if with_split else None
        part = "" if cell is None else str(cell)
        if only is not None and part != only:
            yield part, None
            continue
        try:
            molecules = tuple(_text(cells[name]) for name in columns.molecules)
            target = _target(task, cells[columns.target], terms)
        except ValueError as error:
            raise DataError(f"{path.name}, row {number}: {error}") from error
        yield part, Row(number, molecules, target)


def _text(cell: Any) -> str:
    """A molecule; an empty cell is a bad molecule, and it is the engine that says so."""
    if cell is not None and not isinstance(cell, str):
        raise ValueError(f"a molecule is a text, not {cell!r}")
    return cell or ""


def _target(task: Task, cell: Any, terms: dict[str, str]) -> Target | None:
    """What was measured.

    Raises:
        ValueError: If it is not what the task asks for.
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    if isinstance(task.kind, Choice):
        return _label(task.kind, cell)
    if isinstance(task.kind, Number):
        return _number(cell)
    if isinstance(task.kind, Terms):
        ids = [str(one) for one in cell] if isinstance(cell, list) else str(cell).split()
        unknown = next((one for one in ids if one not in terms), None)
        if unknown is not None:
            raise ValueError(f"there is no name for the id {unknown!r}")
        return tuple(dict.fromkeys(terms[one] for one in ids)) or None
    return _text(cell).strip()


def _number(cell: Any) -> float | None:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        raise ValueError(f"{cell!r} is not a number") from None
    if math.isnan(value):  # pandas writes it for a missing number
        return None
    if abs(value) > _LARGEST:
        raise ValueError(f"{cell!r} is too large for a measurement")
    return value


def _label(kind: Choice, cell: Any) -> int | None:
    value = _number(cell)  # a column of whole numbers with gaps is written as 1.0
    if value is None:
        return None
    if value not in {label.id for label in kind.labels}:
        first, last = kind.labels[0].id, kind.labels[-1].id
        raise ValueError(f"{cell!r} is not a label; they are {first} to {last}")
    return int(value)


def _terms(path: Path, glossary: Glossary) -> dict[str, str]:
    """The names of all ids.

    Raises:
        DataError: If the file of names is not there.
    """
    endings = (".csv.gz", ".csv", ".parquet")
    stem = path.name
    for ending in (".gz", ".csv", ".parquet"):
        stem = stem.removesuffix(ending)
    names = (stem + glossary.suffix, glossary.default)
    candidates = [path.with_name(name + ending) for name in names for ending in endings]
    beside = next((one for one in candidates if one.is_file()), None)
    if beside is None:
        raise DataError(f"no names of the ids in {path.name}: there is no {candidates[0].name}")
    wanted = (glossary.id_column, glossary.name_column)
    require_columns(beside, wanted)
    return {
        str(row[glossary.id_column]): " ".join(str(row[glossary.name_column]).split())
        for row in read_rows(beside, wanted)
    }
