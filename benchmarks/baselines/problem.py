"""Rows of a data set to train on, to select models with, and to score.

The split ``published`` is the data set's own. The splits ``unseen`` and ``scaffold`` are made from
the train splits of all data sets (`moltc_vllm.data.unseen`): some molecules, or all molecules of
some scaffolds, are held out of all of them, and scored pairs are divided by the number of their
molecules that no train row has.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from moltc_vllm.data import COLUMNS, Dataset, Row, read_dataset
from moltc_vllm.data.dataset_registry import DATASETS, DatasetSpec, get_dataset_spec
from moltc_vllm.data.files import sha256
from moltc_vllm.data.keys import unordered
from moltc_vllm.data.splits import TEST, TRAIN, VALID, flat_pair, read_by_split, read_splits
from moltc_vllm.data.unseen import BOTH_UNSEEN, KNOWN, ONE_UNSEEN, SplitBy
from moltc_vllm.data.unseen import read_unseen as read_unseen_splits
from moltc_vllm.tasks import Answer, Choice, Number, Task, get_task

UNSEEN_PARTS = (ONE_UNSEEN, BOTH_UNSEEN)
SPLITS = {
    "published": (TEST,),
    "unseen": UNSEEN_PARTS,
    "scaffold": UNSEEN_PARTS,
}
"""Scored parts of each split."""

HELD_OUT: dict[str, SplitBy] = {"unseen": "molecule", "scaffold": "scaffold"}
"""What the splits by molecule hold out."""

COMPUTED = {"solvation": "combisolv_qm"}
"""Data set with computed targets of a task, on which a method may be trained first."""

SCORABLE_DATASETS = [
    spec for spec in DATASETS.values() if isinstance(get_task(spec.task).kind, Choice | Number)
]
"""Data sets that all methods can answer: those with labels or numbers."""

Answers = dict[int, Answer]
"""Answers by row number."""


class Solution(NamedTuple):
    """Answers of a method and their cost; unknown costs are ``None``.

    Attributes:
        answers: Answers to the scored rows.
        train_cpu_s: CPU seconds from the training SMILES to a model.
        predict_cpu_s: CPU seconds from the model to the answers.
        train_rows: Number of train rows.
        valid_rows: Number of valid rows.
        selected: Settings that the method selected with the valid rows.
    """

    answers: Answers
    train_cpu_s: float | None = None
    predict_cpu_s: float | None = None
    train_rows: int | None = None
    valid_rows: int | None = None
    selected: str | None = None


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and its finished children.

    Unlike wall time, they do not depend on the load of the machine.
    """
    return sum(os.times()[:4])


@dataclass(frozen=True, slots=True)
class Problem:
    """Data set divided into rows to train on, to select with, and to score.

    Attributes:
        name: Name of the data set.
        task: Task of the data set.
        train: Rows to train on, from this data set and the additional ones.
        valid: Rows to select models with, from this data set.
        tests: Scored rows by part.
        computed: Rows with computed targets to train on first; empty if the method or the task has
            none.

    Raises:
        ValueError: If a scored pair is also among the train, valid or computed rows.
    """

    name: str
    task: Task
    train: tuple[Row, ...]
    valid: tuple[Row, ...]
    tests: Mapping[str, Dataset]
    computed: tuple[Row, ...] = ()

    def __post_init__(self) -> None:
        scored = _pairs(self.test_rows)
        for part, rows in ((TRAIN, self.train), (VALID, self.valid), ("computed", self.computed)):
            if not scored.isdisjoint(_pairs(rows)):
                raise ValueError(f"{self.name}: a scored pair is also among the {part} rows")

    @property
    def test_rows(self) -> tuple[Row, ...]:
        """Scored rows of all parts; their numbers are unique, since they are from one file."""
        return tuple(row for data in self.tests.values() for row in data.rows)

    @property
    def molecules(self) -> list[str]:
        """SMILES of all rows, each once, those of train rows first."""
        parts = (self.train, self.computed, self.valid, self.test_rows)
        return list(
            dict.fromkeys(smiles for rows in parts for row in rows for smiles in row.molecules)
        )


def read_published(
    name: str,
    folder: Path,
    *,
    also: Iterable[str] = (),
    related: bool = False,
    computed: bool = False,
) -> Problem:
    """Read a data set in its own split, without scored pairs among the train rows.

    Args:
        name: Name of the data set, a key of `moltc_vllm.data.dataset_registry.DATASETS`.
        folder: Folder of the data files.
        also: Names of further data sets of the same task whose train rows are trained on.
        related: Whether to leave out the train and valid rows that any related data set holds out,
            as a single model of all data sets has to (`moltc_vllm.data.splits`).
        computed: Whether to read the rows with computed targets of the task, if there are any.

    Raises:
        ValueError: If a data set is unknown, cannot be read, or has another task.
    """
    spec, others = _check_tasks(name, also)
    own = _measured_by_split(spec, folder)
    # Other data sets may lack stereochemistry, so their rows can reveal an isomer's target.
    held_out = {flat_pair(row.molecules) for row in (*own[TEST], *own[VALID])}

    def train_rows_of(other: str) -> list[Row]:
        rows = _measured_by_split(get_dataset_spec(other), folder)[TRAIN]
        return [row for row in rows if flat_pair(row.molecules) not in held_out]

    if related:
        splits = read_splits([name, *others], folder)
        train = [row for split in splits.values() for row in split.rows[TRAIN]]
        valid = splits[name].rows[VALID]
    else:
        additional_rows = [row for other in others for row in train_rows_of(other)]
        train, valid = [*own[TRAIN], *additional_rows], own[VALID]
    test_pairs = _pairs(own[TEST])
    valid = _without(valid, test_pairs)
    task = get_task(spec.task)
    test = read_dataset(folder / spec.file, task, split=TEST)
    return Problem(
        name,
        task,
        _without(train, test_pairs | _pairs(valid)),
        valid,
        {TEST: test},
        tuple(train_rows_of(COMPUTED[task.name])) if computed and task.name in COMPUTED else (),
    )


def read_unseen(
    name: str,
    folder: Path,
    *,
    by: SplitBy = "molecule",
    also: Iterable[str] = (),
    seed: int = 0,
    fraction: float = 0.1,
    computed: bool = False,
) -> Problem:
    """Read the pairs with one or two molecules that no train row of any data set has.

    Args:
        name: Name of the data set; see `read_published`.
        folder: Folder of the data files.
        by: Whether to hold out molecules or scaffolds.
        also: Names of further data sets of the same task whose train rows are trained on.
        seed: Seed of the selection of molecules to hold out.
        fraction: Approximate fraction of molecules to hold out.
        computed: Whether to read the rows with computed targets; see `read_published`.

    Raises:
        ValueError: If a data set is unknown, cannot be read, or has another task.
    """
    spec, others = _check_tasks(name, also)
    unseen, splits = read_unseen_splits(folder, seed, fraction, by)
    train = [row for known in (name, *others) for row in unseen.rows[known][KNOWN]]
    valid = unseen.drop_excluded(splits[name].rows[VALID])
    path, task = folder / spec.file, get_task(spec.task)
    tests = {part: _dataset(path, task, part, unseen.rows[name][part]) for part in UNSEEN_PARTS}
    scored = {pair for part in tests.values() for pair in _pairs(part.rows)}
    first = unseen.rows[COMPUTED[task.name]][KNOWN] if computed and task.name in COMPUTED else []
    without_scored = [_without(rows, scored) for rows in (train, valid, first)]
    return Problem(name, task, without_scored[0], without_scored[1], tests, without_scored[2])


def _check_tasks(name: str, also: Iterable[str]) -> tuple[DatasetSpec, list[str]]:
    """Return a data set and the names of the other ones, which have to be of its task."""
    spec, others = get_dataset_spec(name), [other for other in also if other != name]
    for other in map(get_dataset_spec, others):
        if other.task != spec.task:
            raise ValueError(
                f"data sets of different tasks: {other.name} is of task {other.task}, "
                f"{name} of {spec.task}"
            )
    return spec, others


def _pairs(rows: Iterable[Row]) -> set[tuple[str, ...]]:
    return {unordered(row.molecules) for row in rows}


def _without(rows: Iterable[Row], pairs: set[tuple[str, ...]]) -> tuple[Row, ...]:
    return tuple(row for row in rows if unordered(row.molecules) not in pairs)


def _measured_by_split(spec: DatasetSpec, folder: Path) -> dict[str, list[Row]]:
    """Return the rows of a data set that have a target."""
    return {
        split: [row for row in rows if row.target is not None]
        for split, rows in read_by_split(spec, folder).items()
    }


def _dataset(path: Path, task: Task, part: str, rows: Iterable[Row]) -> Dataset:
    measured = tuple(rows)
    count, columns = len(measured), COLUMNS[task.name]
    return Dataset(path.name, sha256(path), columns, part, count, count, measured, ())
