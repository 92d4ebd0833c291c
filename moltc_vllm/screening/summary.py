"""What a screen came to, read from its parts: counts, reasons, samples, and the rows at the top."""

from __future__ import annotations

import csv
import heapq
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pa_compute
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from moltc_vllm.screening.parts import (
    ANSWER_COLUMNS,
    CONFIDENCE,
    ERROR,
    LABEL,
    LEFT_ROW,
    RIGHT_ROW,
    ROW,
    STATUS,
    VALUE,
    part_path,
)
from moltc_vllm.tasks import Choice, Number, Task
from moltc_vllm.utils.atomic_files import new_file

_BATCH = 4096
_REASONS = 20
_NAMED = 10  # labels
_MOST_REASONS = 10_000  # that are counted: whatever files and engines say
_SAMPLE = 20_000
_MOLECULE = re.compile(r"^molecule '.*': (?=\w+: )", re.DOTALL)
_WHERE = re.compile(r"^(?:left |right )?row \d+: ")


@dataclass(frozen=True, slots=True)
class Ranking:
    """Which rows are at the top.

    Numbers by their value; labels by the confidence in ``label``; lists and texts by theirs.

    Attributes:
        most: So many.
        smallest: Whether small values are good.
        threshold: Only values from here on, or confidences.
        label: That is looked for; default: of a yes-or-no task yes, else whichever was given.
    """

    most: int = 100
    smallest: bool = False
    threshold: float | None = None
    label: str | None = None

    def check(self, task: Task) -> None:
        """Refuse what means nothing for a task.

        Raises:
            ValueError: Saying what.
        """
        if self.smallest and not isinstance(task.kind, Number):
            raise ValueError(f"{task.name!r} is not about numbers: none of them is the smallest")
        if self.label is None:
            return
        labels = [one.name for one in task.kind.labels] if isinstance(task.kind, Choice) else []
        if not labels:
            raise ValueError(f"{task.name!r} has no labels")
        if self.label not in labels:
            named = ", ".join(labels[:_NAMED]) + (", ..." if len(labels) > _NAMED else "")
            raise ValueError(f"{task.name!r} has no label {self.label!r}; there are {named}")


class Sample:
    """A uniform sample of numbers that come one batch after another; all, if they are few.

    Args:
        size: PairingMode many are kept.
        seed: Of the choice.
    """

    def __init__(self, size: int = _SAMPLE, seed: int = 0) -> None:
        self._size = size
        self._random = np.random.default_rng(seed)
        self._keys = self.numbers = np.empty(0)

    def add(self, numbers: NDArray[np.float64]) -> None:
        """Each number draws a key; the smallest keys stay."""
        keys = np.concatenate([self._keys, self._random.random(len(numbers))])
        self.numbers = np.concatenate([self.numbers, numbers])
        if len(keys) > self._size:
            kept = np.argpartition(keys, self._size)[: self._size]
            keys, self.numbers = keys[kept], self.numbers[kept]
        self._keys = keys


@dataclass(slots=True)
class Summary:
    """What is in the parts.

    Attributes:
        rows: All of them.
        statuses: Rows of each status.
        reasons: Why rows have no answer: how often, without what each one is about.
        examples: The first row that was read of each reason.
        labels: Rows of each label.
        mean: Of the numbers.
        low: The smallest number.
        high: The largest number.
        values: A sample of the numbers.
        confidences: A sample of the confidences.
        top: The best rows, best first; columns as in the parts.
        heatmap_rows: The rows of the first and second molecules that were asked for, without the
            input's own columns.
    """

    rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, int] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    values: Sample = field(default_factory=Sample)
    confidences: Sample = field(default_factory=Sample)
    top: list[dict[str, Any]] = field(default_factory=list)
    heatmap_rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Rows without an answer."""
        return self.rows - self.statuses["ok"]

    def as_json(self) -> dict[str, Any]:
        """Counts and figures."""
        return {
            "rows": self.rows,
            "statuses": dict(self.statuses.most_common()),
            "reasons": dict(self.reasons.most_common(_REASONS)),
            "labels": dict(self.labels.most_common()),
            "values": None
            if self.mean is None
            else {"mean": self.mean, "low": self.low, "high": self.high},
        }


def summarize(
    folder: Path,
    parts: int,
    task: Task,
    ranking: Ranking,
    heatmap_rows: tuple[set[int], set[int]] = (set(), set()),
) -> Summary:
    """Read all parts once, a few rows at a time.

    Args:
        folder: Of the parts.
        parts: PairingMode many there are.
        task: What was asked.
        ranking: Which rows are wanted.
        heatmap_rows: Rows of the first and second table whose pairs are wanted, too.
    """
    found = Summary()
    total, count = 0.0, 0
    best: list[tuple[float, int, dict[str, Any]]] = []
    for batch in _batches(folder, parts):
        found.rows += batch.num_rows
        found.statuses.update(batch[STATUS].to_pylist())
        answered = pa_compute.equal(batch[STATUS], "ok")
        if any(heatmap_rows):
            found.heatmap_rows += _crossed(batch, heatmap_rows)
        _count_reasons(found, batch.filter(pa_compute.invert(answered)))
        batch = batch.filter(answered)
        if isinstance(task.kind, Choice):
            found.labels.update(batch[LABEL].to_pylist())
        elif isinstance(task.kind, Number) and batch.num_rows:
            values = _numbers(batch, VALUE)
            found.values.add(values)
            total, count = total + float(values.sum()), count + len(values)
            low, high = float(values.min()), float(values.max())
            found.low = low if found.low is None else min(found.low, low)
            found.high = high if found.high is None else max(found.high, high)
        sure = _numbers(batch, CONFIDENCE)
        found.confidences.add(sure[~np.isnan(sure)])
        _push_top_k(best, batch, _scores(task, batch, ranking), ranking.most)
    found.mean = total / count if count else None
    found.top = [row for *_, row in sorted(best, key=lambda entry: entry[:2], reverse=True)]
    return found


def write_summary(
    folder: Path, summary: Summary, columns: Sequence[str], more: dict[str, Any]
) -> None:
    """Write ``summary.json`` and ``top.csv``.

    Args:
        folder: Of the parts.
        summary: Of them.
        columns: Of the parts, in their order.
        more: What else is to stand in the former.
    """
    text = json.dumps({**summary.as_json(), **more}, indent=2, ensure_ascii=False)
    with new_file(folder / "summary.json") as partial:
        partial.write_text(text + "\n", "utf-8")
    with (
        new_file(folder / "top.csv") as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(row[name]) for name in columns] for row in summary.top)


def read_run(folder: Path) -> dict[str, Any]:
    """Figures of an earlier run, as `write_summary` wrote them under ``run``; or none."""
    try:
        found = json.loads((folder / "summary.json").read_text("utf-8"))["run"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _cell(value: Any) -> Any:
    return "; ".join(value) if isinstance(value, list) else value


def _batches(folder: Path, parts: int) -> Iterator[pa.RecordBatch]:
    for number in range(parts):
        with pa_parquet.ParquetFile(part_path(folder, number)) as file:
            yield from file.iter_batches(batch_size=_BATCH, use_threads=False)


def _numbers(batch: pa.RecordBatch, column: str) -> NDArray[np.float64]:
    """A column of numbers; what is missing is NaN."""
    numbers: NDArray[np.float64] = batch[column].to_numpy(zero_copy_only=False)
    return numbers.astype(np.float64)


def _crossed(batch: pa.RecordBatch, wanted: tuple[set[int], set[int]]) -> list[dict[str, Any]]:
    both = (
        pa_compute.is_in(batch[name], pa.array(sorted(places), pa.int64()))
        for name, places in zip((LEFT_ROW, RIGHT_ROW), wanted, strict=True)
    )
    names = [one for one in batch.schema.names if one in ANSWER_COLUMNS]
    rows: list[dict[str, Any]] = batch.filter(pa_compute.and_(*both)).select(names).to_pylist()
    return rows


def _count_reasons(found: Summary, failed: pa.RecordBatch) -> None:
    columns = (failed[name].to_pylist() for name in (ROW, STATUS, ERROR))
    for row, status, error in zip(*columns, strict=True):
        reason = f"{status}: {_general(error)}"
        if reason in found.reasons or len(found.reasons) < _MOST_REASONS:
            found.reasons[reason] += 1
            found.examples.setdefault(reason, row)


def _general(error: str | None) -> str:
    """A reason without the molecule or the row that it is about."""
    return _MOLECULE.sub("", _WHERE.sub("", error or ""))


def _push_top_k(
    best: list[tuple[float, int, dict[str, Any]]],
    batch: pa.RecordBatch,
    scores: NDArray[np.float64],
    most: int,
) -> None:
    """Put a batch's rows among the best so far; of equal ones the first row stays."""
    if not most:
        return
    least = best[0][0] if len(best) == most else -np.inf
    for place in np.flatnonzero(scores >= least):  # never a NaN
        key = float(scores[place]), -int(batch[ROW][int(place)].as_py())
        if len(best) == most and key <= best[0][:2]:
            continue  # of many equal ones most are
        entry = (*key, batch.slice(int(place), 1).to_pylist()[0])
        (heapq.heappush if len(best) < most else heapq.heapreplace)(best, entry)


def _scores(task: Task, batch: pa.RecordBatch, ranking: Ranking) -> NDArray[np.float64]:
    """PairingMode good rows with answers are: larger is better; NaN if one is not wanted."""
    if isinstance(task.kind, Number):
        values = _numbers(batch, VALUE)
        sign = -1 if ranking.smallest else 1
        scores = sign * values
        if ranking.threshold is not None:
            scores[scores < sign * ranking.threshold] = np.nan
        return scores
    scores = _numbers(batch, CONFIDENCE)
    labels = task.kind.labels if isinstance(task.kind, Choice) else ()
    wanted = ranking.label or (labels[-1].name if len(labels) == 2 else None)
    if wanted is not None:
        scores[np.array(batch[LABEL].to_pylist(), dtype=object) != wanted] = np.nan
    if ranking.threshold is not None:
        scores[scores < ranking.threshold] = np.nan
    return scores
