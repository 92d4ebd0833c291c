"""What a method has to solve: rows to learn from, rows to choose with, rows to be scored on.

``published`` is a data set's own split. ``unseen`` is made from the train parts of all data sets
(`moltc_vllm.data.unseen`): some molecules are set aside everywhere, and pairs are scored by how
many of their molecules no row to learn from has.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from moltc_vllm.data import COLUMNS, Dataset, Row, read_dataset
from moltc_vllm.data.datasets import DATASETS, Source, get_source
from moltc_vllm.data.files import sha256
from moltc_vllm.data.keys import unordered
from moltc_vllm.data.splits import TEST, TRAIN, VALID, flat_pair, read_by_split, read_parts
from moltc_vllm.data.unseen import BOTH_UNSEEN, KNOWN, ONE_UNSEEN
from moltc_vllm.data.unseen import read_unseen as unseen_of_all
from moltc_vllm.tasks import Answer, Choice, Number, Task, get_task

SPLITS = {"published": (TEST,), "unseen": (ONE_UNSEEN, BOTH_UNSEEN)}
"""The parts that are scored, of each way to split."""

SCORED = [one for one in DATASETS.values() if isinstance(get_task(one.task).kind, Choice | Number)]
"""Data sets that all methods can answer: of labels or numbers."""

Answers = dict[int, Answer]
"""By the number of their row."""


class Solved(NamedTuple):
    """What a method answered, and what it took; what is not known is ``None``.

    Training begins with SMILES and ends with a model, predicting ends with answers. ``chosen`` is
    what the method chose with the valid rows.
    """

    answers: Answers
    train_cpu_s: float | None = None
    predict_cpu_s: float | None = None
    train_rows: int | None = None
    valid_rows: int | None = None
    chosen: str | None = None


def cpu_seconds() -> float:
    """Used so far on all threads, and by the programs that were run: others' load is no matter."""
    return sum(os.times()[:4])


@dataclass(frozen=True, slots=True)
class Problem:
    """One data set, split.

    Attributes:
        name: Of the data set.
        task: What is asked.
        train: To learn from; of the data set and of others that were named.
        valid: To choose with; of the data set.
        tests: To be scored on, by part.
    """

    name: str
    task: Task
    train: tuple[Row, ...]
    valid: tuple[Row, ...]
    tests: Mapping[str, Dataset]

    def __post_init__(self) -> None:
        scored = _pairs(self.asked)
        for what, rows in ((TRAIN, self.train), (VALID, self.valid)):
            if not scored.isdisjoint(_pairs(rows)):
                raise ValueError(f"{self.name}: a pair of the {what} rows is also to be scored")

    @property
    def asked(self) -> tuple[Row, ...]:
        """The rows of all parts; their numbers differ, for they are of one file."""
        return tuple(row for data in self.tests.values() for row in data.rows)


def read_published(
    name: str, folder: Path, *, also: Iterable[str] = (), related: bool = False
) -> Problem:
    """A data set in its own split, with no scored pair in what is learned from.

    Args:
        name: Key of `moltc_vllm.data.datasets.DATASETS`.
        folder: Where the files are.
        also: Data sets of the same task whose train rows are learned from, too.
        related: Leave out of the train and valid rows what any related data set holds back, too,
            as one model of all data sets must (`moltc_vllm.data.splits`).

    Raises:
        ValueError: If a data set is unknown, cannot be read, or is of another task.
    """
    source, others = _sources(name, also)
    own = _by_split(source, folder)
    if related:
        parts = read_parts([name, *others], folder)
        train = [row for part in parts.values() for row in part.rows[TRAIN]]
        valid = parts[name].rows[VALID]
    else:
        # Other data sets may leave stereochemistry out, and tell an answer as that of an isomer.
        held = {flat_pair(row.molecules) for row in (*own[TEST], *own[VALID])}
        more = [row for other in others for row in _by_split(get_source(other), folder)[TRAIN]]
        kept = [row for row in more if flat_pair(row.molecules) not in held]
        train, valid = [*own[TRAIN], *kept], own[VALID]
    tested = _pairs(own[TEST])
    valid = _without(valid, tested)
    task = get_task(source.task)
    test = read_dataset(folder / source.file, task, split=TEST)
    return Problem(name, task, _without(train, tested | _pairs(valid)), valid, {TEST: test})


def read_unseen(
    name: str, folder: Path, *, also: Iterable[str] = (), seed: int = 0, fraction: float = 0.1
) -> Problem:
    """Pairs of a data set's train part with one molecule, or both, in no train row of any data set.

    Args:
        name: As in `read_published`, like ``folder`` and ``also``.
        folder: Where the files are.
        also: More to learn from.
        seed: Another one sets other molecules aside.
        fraction: Of all molecules, about.

    Raises:
        ValueError: As `read_published`.
    """
    source, others = _sources(name, also)
    unseen, parts = unseen_of_all(folder, seed, fraction)
    train = [row for one in (name, *others) for row in unseen.rows[one][KNOWN]]
    valid = [row for row in parts[name].rows[VALID] if not any(map(unseen.is_aside, row.molecules))]
    path, task = folder / source.file, get_task(source.task)
    tests = {part: _dataset(path, task, part, unseen.rows[name][part]) for part in SPLITS["unseen"]}
    scored = {pair for part in tests.values() for pair in _pairs(part.rows)}
    return Problem(name, task, _without(train, scored), _without(valid, scored), tests)


def _sources(name: str, also: Iterable[str]) -> tuple[Source, list[str]]:
    """A data set, and the other ones of its task that were named."""
    source, others = get_source(name), [other for other in also if other != name]
    for other in map(get_source, others):
        if other.task != source.task:
            raise ValueError(f"{other.name} is of task {other.task}, {name} of {source.task}")
    return source, others


def _pairs(rows: Iterable[Row]) -> set[tuple[str, ...]]:
    return {unordered(row.molecules) for row in rows}


def _without(rows: Iterable[Row], pairs: set[tuple[str, ...]]) -> tuple[Row, ...]:
    return tuple(row for row in rows if unordered(row.molecules) not in pairs)


def _by_split(source: Source, folder: Path) -> dict[str, list[Row]]:
    """The measured rows of a data set."""
    return {
        split: [row for row in rows if row.target is not None]
        for split, rows in read_by_split(source, folder).items()
    }


def _dataset(path: Path, task: Task, part: str, rows: Iterable[Row]) -> Dataset:
    measured = tuple(rows)
    count, columns = len(measured), COLUMNS[task.name]
    return Dataset(path.name, sha256(path), columns, part, count, count, measured, ())
