"""The rows of one data set: molecules and measured targets, read from a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from moltc_vllm.data.columns import COLUMNS, SPLIT, Glossary, TaskColumns
from moltc_vllm.data.files import DataError, read_rows, sha256
from moltc_vllm.tables.formats import table_stem
from moltc_vllm.tasks import Choice, Number, Task, Terms

Target = int | float | str | tuple[str, ...]
"""Measured value, by the kind of the task's answer: a label's id, a number, a text, or terms."""

_MAX_ABS_NUMBER = 1e12  # an answer has at most as many digits


@dataclass(frozen=True, slots=True)
class Row:
    """Molecules and their measured target.

    Attributes:
        number: Number of the row in its file, from 1; the header does not count.
        molecules: SMILES, one per role of the task.
        target: Measured value; ``None`` if it is missing.
    """

    number: int
    molecules: tuple[str, ...]
    target: Target | None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows of a data file to evaluate on.

    Attributes:
        name: Name of the file.
        sha256: Checksum of the file on disk, i.e. of its compressed bytes.
        columns: Columns that were read.
        split: Split that the rows are from; ``None`` for all rows of the file.
        in_split: Number of rows in the split.
        measured: Number of rows in the split that have a target.
        rows: Rows with a target, or a sample of them, in the order of the file.
        not_measured: Rows without a target; empty if a limit removed rows that have one.
    """

    name: str
    sha256: str
    columns: TaskColumns
    split: str | None
    in_split: int
    measured: int
    rows: tuple[Row, ...]
    not_measured: tuple[Row, ...]


def read_dataset(
    path: Path, task: Task, *, split: str | None = None, limit: int | None = None, seed: int = 0
) -> Dataset:
    """Read the rows of a task's data file.

    Args:
        path: File in any format of `moltc_vllm.tables`, e.g. CSV or Parquet.
        task: Task of the data; `COLUMNS` has the columns that it needs.
        split: Value in the column ``split`` of the rows to read; default: all rows.
        limit: Number of rows with a target to sample; with the same seed, the rows of a smaller
            limit are among those of a larger one. Default: all rows.
        seed: Seed of the sample.

    Raises:
        DataError: If the file cannot be read, lacks a column or the split, or has a target that
            the task does not allow.
    """
    measured: list[Row] = []
    not_measured: list[Row] = []
    splits = set()
    for row_split, row in _read(path, task, only=split, with_split=split is not None):
        splits.add(row_split)
        if row is not None:
            (not_measured if row.target is None else measured).append(row)
    if split is not None and split not in splits:
        present = ", ".join(sorted(filter(None, splits))) or "none"
        raise DataError(f"{path.name} has no split {split!r}; there are {present}")
    rows, in_split = measured, len(measured) + len(not_measured)
    if limit is not None and limit < len(measured):
        rows, not_measured = sample_rows(measured, limit, seed), []
    return Dataset(
        path.name,
        sha256(path),
        COLUMNS[task.name],
        split,
        in_split,
        len(measured),
        tuple(rows),
        tuple(not_measured),
    )


def read_split_rows(path: Path, task: Task) -> Iterator[tuple[str, Row]]:
    """Read every row of a task's data file with its split, in the order of the file.

    Yields:
        Name of the split, and the row.

    Raises:
        DataError: If the file cannot be read, as for `read_dataset`.
    """
    for split, row in _read(path, task, only=None, with_split=True):
        if row is not None:
            yield split, row


def sample_rows(rows: Sequence[Row], limit: int | None, seed: int) -> list[Row]:
    """Sample rows without replacement and keep their order.

    Args:
        rows: Rows to sample from.
        limit: Number of rows to sample; ``None`` for all. The rows of a smaller limit are among
            those of a larger one.
        seed: Seed of the sample.
    """
    if limit is None or limit >= len(rows):
        return list(rows)
    indices = np.random.default_rng(seed).permutation(len(rows))[:limit]
    return [rows[index] for index in sorted(indices)]


def write_answer(task: Task, row: Row, dataset: str) -> str:
    """Write the task's answer text for the target of a row.

    Args:
        task: Task of the data set.
        row: Row with a target.
        dataset: Name of the data set, for the error.

    Raises:
        DataError: If the task cannot express the target, e.g. a number outside its bounds.
    """
    try:
        return task.write(row.target)
    except ValueError as error:
        pair = ", ".join(row.molecules)
        raise DataError(f"{dataset}, row {row.number} ({pair}): {error}") from error


def _read(
    path: Path, task: Task, *, only: str | None, with_split: bool
) -> Iterator[tuple[str, Row | None]]:
    """Yield the split of each row, and the row, or ``None`` if it is not in the split ``only``."""
    columns = COLUMNS.get(task.name)
    if columns is None:
        raise DataError(f"task {task.name!r} has no measured answers; {', '.join(COLUMNS)} have")
    names = [*columns.molecules, columns.target, *([SPLIT] if with_split else [])]
    rows = read_rows(path, names)
    terms = _read_glossary(path, columns.glossary) if columns.glossary else {}
    parse_target = _target_parser(task, terms)
    molecule_count = len(columns.molecules)
    for number, cells in enumerate(rows, 1):
        split = str(cells[-1]) if with_split and cells[-1] is not None else ""
        if only is not None and split != only:
            yield split, None
            continue
        try:
            molecules = tuple(_parse_text(cell) for cell in cells[:molecule_count])
            target = parse_target(cells[molecule_count])
        except ValueError as error:
            raise DataError(f"{path.name}, row {number}: {error}") from error
        yield split, Row(number, molecules, target)


def _target_parser(task: Task, terms: dict[str, str]) -> Callable[[Any], Target | None]:
    """Return the function that parses a cell of the target column.

    It returns ``None`` for a missing target and raises `ValueError` for one that the task does not
    allow.

    Args:
        task: Task of the data.
        terms: Names by id, for a task whose answers are terms.
    """
    parse: Callable[[Any], Target | None]
    if isinstance(task.kind, Choice):
        parse = _label_parser(task.kind)
    elif isinstance(task.kind, Number):
        parse = _parse_number
    elif isinstance(task.kind, Terms):
        parse = partial(_parse_terms, terms=terms)
    else:
        parse = _parse_stripped_text

    def parse_unless_missing(cell: Any) -> Target | None:
        is_missing = cell is None or (isinstance(cell, str) and not cell.strip())
        return None if is_missing else parse(cell)

    return parse_unless_missing


def _parse_text(cell: Any) -> str:
    # An empty cell is passed on: the engine reports it as a bad molecule.
    if cell is not None and not isinstance(cell, str):
        raise ValueError(f"a molecule is a text, not {cell!r}")
    return cell or ""


def _parse_stripped_text(cell: Any) -> str:
    return _parse_text(cell).strip()


def _label_parser(kind: Choice) -> Callable[[Any], int | None]:
    label_ids = [label.id for label in kind.labels]
    first, last, known = label_ids[0], label_ids[-1], frozenset(label_ids)

    def parse(cell: Any) -> int | None:
        value = _parse_number(cell)  # pandas writes a column of integers with gaps as 1.0
        if value is None:
            return None
        if value not in known:
            raise ValueError(f"{cell!r} is not a label; they are {first} to {last}")
        return int(value)

    return parse


def _parse_number(cell: Any) -> float | None:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        raise ValueError(f"{cell!r} is not a number") from None
    if math.isnan(value):  # pandas writes a missing number as NaN
        return None
    if abs(value) > _MAX_ABS_NUMBER:
        raise ValueError(f"{cell!r} is too large for a measurement")
    return value


def _parse_terms(cell: Any, terms: dict[str, str]) -> tuple[str, ...] | None:
    """Return the names of the ids in a list, or in a text with spaces between them."""
    ids = [str(item) for item in cell] if isinstance(cell, list) else str(cell).split()
    unknown = next((term_id for term_id in ids if term_id not in terms), None)
    if unknown is not None:
        raise ValueError(f"there is no name for the id {unknown!r}")
    return tuple(dict.fromkeys(terms[term_id] for term_id in ids)) or None


def _read_glossary(path: Path, glossary: Glossary) -> dict[str, str]:
    """Read the names of all ids from the glossary in the folder of a data file.

    Raises:
        DataError: If there is no such file, or it cannot be read.
    """
    stem = table_stem(path)
    candidates = [
        path.with_name(name + suffix)
        for name in (stem + glossary.suffix, glossary.default)
        for suffix in (".csv.gz", ".csv", ".parquet")
    ]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise DataError(f"no names of the ids in {path.name}: there is no {candidates[0].name}")
    rows = read_rows(file, (glossary.id_column, glossary.name_column))
    return {str(term_id): " ".join(str(name).split()) for term_id, name in rows}
