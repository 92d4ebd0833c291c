"""Summary of a screen, read from its parts: counts, failure reasons, samples and the best rows."""

from __future__ import annotations

import csv
import heapq
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pa_compute
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from moltc_vllm.screening.answer_columns import (
    CONFIDENCE,
    ERROR,
    FAMILIARITY,
    LABEL,
    STATUS,
    VALUE,
)
from moltc_vllm.screening.config import Ranking
from moltc_vllm.screening.parts import ANSWER_COLUMNS, LEFT_ROW, RIGHT_ROW, ROW, part_path
from moltc_vllm.tasks import Choice, Number, Task
from moltc_vllm.utils.atomic_files import new_file
from moltc_vllm.utils.json_objects import read_json_object

SUMMARY = "summary.json"
TOP = "top.csv"

_BATCH_ROWS = 4096
_LISTED_REASONS = 20
_MAX_REASONS = 10_000  # bounds memory: files and engines may produce any number of messages
_SAMPLE_SIZE = 20_000
_MOLECULE_PREFIX = re.compile(r"^molecule '.*': (?=\w+: )", re.DOTALL)
_ROW_PREFIX = re.compile(r"^(?:left |right )?row \d+: ")

_TopEntry: TypeAlias = tuple[float, int, dict[str, Any]]
"""Score, negative row number (the first of equal rows wins) and the row itself."""


class Sample:
    """Uniform random sample of a stream of numbers, with a fixed maximum size.

    Args:
        size: Largest number of values to keep; a shorter stream is kept completely.
        seed: Seed of the sample.

    Attributes:
        numbers: Sampled numbers, ``[size]`` or fewer, float64.
    """

    def __init__(self, size: int = _SAMPLE_SIZE, seed: int = 0) -> None:
        self._size = size
        self._random = np.random.default_rng(seed)
        self._keys = self.numbers = np.empty(0)

    def add(self, numbers: NDArray[np.float64]) -> None:
        """Add numbers of the stream; each draws a random key, and the smallest keys are kept."""
        keys = np.concatenate([self._keys, self._random.random(len(numbers))])
        self.numbers = np.concatenate([self.numbers, numbers])
        if len(keys) > self._size:
            kept = np.argpartition(keys, self._size)[: self._size]
            keys, self.numbers = keys[kept], self.numbers[kept]
        self._keys = keys


@dataclass(slots=True)
class Summary:
    """Counts, statistics and selected rows of a screen.

    Attributes:
        rows: Number of rows.
        statuses: Number of rows by status.
        reasons: Number of failed rows by reason, without the molecule or row that a reason names.
        examples: First row number of each reason.
        labels: Number of rows by predicted label.
        familiarities: Number of answered rows by the familiarity of their molecules.
        mean: Mean of the values; ``None`` if no row has one.
        low: Smallest value.
        high: Largest value.
        values: Sample of the values.
        confidences: Sample of the confidences.
        top: Best rows, best first, with the columns of the parts.
        heatmap_rows: Rows of the heat map, with the answer columns only.
    """

    rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, int] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    familiarities: Counter[str] = field(default_factory=Counter)
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    values: Sample = field(default_factory=Sample)
    confidences: Sample = field(default_factory=Sample)
    top: list[dict[str, Any]] = field(default_factory=list)
    heatmap_rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Number of rows that failed."""
        return self.rows - self.statuses["ok"]

    def as_json(self) -> dict[str, Any]:
        """Return counts and statistics as JSON values."""
        return {
            "rows": self.rows,
            "statuses": dict(self.statuses.most_common()),
            "reasons": dict(self.reasons.most_common(_LISTED_REASONS)),
            "labels": dict(self.labels.most_common()),
            "familiarity": dict(self.familiarities.most_common()),
            "values": None
            if self.mean is None
            else {"mean": self.mean, "low": self.low, "high": self.high},
        }


def summarize(
    folder: Path,
    part_count: int,
    task: Task,
    ranking: Ranking,
    heatmap_rows: tuple[set[int], set[int]] = (set(), set()),
) -> Summary:
    """Summarize all parts in one pass, a few thousand rows at a time.

    Args:
        folder: Folder of the parts.
        part_count: Number of parts.
        task: Task of the screen.
        ranking: Ranking of the best rows.
        heatmap_rows: Row numbers of the first and of the second table, from 1; rows that pair two
            of them are collected for the heat map.

    Raises:
        ValueError: If the ranking requires familiar molecules and the screen does not record
            familiarity.
    """
    summary = Summary()
    value_sum, value_count = 0.0, 0
    top: list[_TopEntry] = []
    for batch in _read_batches(folder, part_count):
        summary.rows += batch.num_rows
        summary.statuses.update(batch[STATUS].to_pylist())
        is_ok = pa_compute.equal(batch[STATUS], "ok")
        if any(heatmap_rows):
            summary.heatmap_rows += _select_heatmap_rows(batch, heatmap_rows)
        _count_reasons(summary, batch.filter(pa_compute.invert(is_ok)))
        batch = batch.filter(is_ok)
        if isinstance(task.kind, Choice):
            summary.labels.update(batch[LABEL].to_pylist())
        elif isinstance(task.kind, Number) and batch.num_rows:
            values = _float_column(batch, VALUE)
            _add_values(summary, values)
            value_sum, value_count = value_sum + float(values.sum()), value_count + len(values)
        familiarities = _familiarities(batch)
        summary.familiarities.update(name for name in familiarities if name is not None)
        confidences = _float_column(batch, CONFIDENCE)
        summary.confidences.add(confidences[~np.isnan(confidences)])
        scores = _scores(task, batch, ranking)
        if ranking.allowed_familiarity:
            scores[~np.isin(familiarities, ranking.allowed_familiarity)] = np.nan
        _push_top_k(top, batch, scores, ranking.top_k)
    if ranking.allowed_familiarity and summary.statuses["ok"] and not summary.familiarities:
        raise ValueError(
            "the answers have no familiarity, because the model has no index of its training "
            "molecules: rank without it"
        )
    summary.mean = value_sum / value_count if value_count else None
    summary.top = [row for *_, row in sorted(top, key=lambda entry: entry[:2], reverse=True)]
    return summary


def write_summary(
    folder: Path, summary: Summary, columns: Sequence[str], extra: Mapping[str, Any]
) -> None:
    """Write ``summary.json`` and ``top.csv``.

    Args:
        folder: Folder of the parts.
        summary: Summary to write.
        columns: Columns of ``top.csv``, in order.
        extra: Further values of ``summary.json``.
    """
    text = json.dumps({**summary.as_json(), **extra}, indent=2, ensure_ascii=False)
    with new_file(folder / SUMMARY) as partial:
        partial.write_text(text + "\n", "utf-8")
    with (
        new_file(folder / TOP) as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_csv_cell(row[name]) for name in columns] for row in summary.top)


def read_run_figures(folder: Path) -> dict[str, Any]:
    """Read the figures of an earlier run (``run`` in ``summary.json``); empty without them."""
    try:
        figures = read_json_object(folder / SUMMARY).get("run")
    except ValueError:
        return {}
    return figures if isinstance(figures, dict) else {}


def _csv_cell(value: Any) -> Any:
    return "; ".join(value) if isinstance(value, list) else value


def _read_batches(folder: Path, part_count: int) -> Iterator[pa.RecordBatch]:
    for number in range(part_count):
        with pa_parquet.ParquetFile(part_path(folder, number)) as file:
            yield from file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)


def _float_column(batch: pa.RecordBatch, column: str) -> NDArray[np.float64]:
    """Return a column as ``[rows]`` float64, with NaN for missing values."""
    numbers: NDArray[np.float64] = batch[column].to_numpy(zero_copy_only=False)
    return numbers.astype(np.float64)


def _familiarities(batch: pa.RecordBatch) -> NDArray[np.object_]:
    """Return the familiarity of each row, None where it is missing, ``[rows]``."""
    if FAMILIARITY not in batch.schema.names:
        return np.full(batch.num_rows, None, dtype=object)
    return np.array(batch[FAMILIARITY].to_pylist(), dtype=object)


def _add_values(summary: Summary, values: NDArray[np.float64]) -> None:
    summary.values.add(values)
    low, high = float(values.min()), float(values.max())
    summary.low = low if summary.low is None else min(summary.low, low)
    summary.high = high if summary.high is None else max(summary.high, high)


def _select_heatmap_rows(
    batch: pa.RecordBatch, heatmap_rows: tuple[set[int], set[int]]
) -> list[dict[str, Any]]:
    """Return the rows of a batch that pair two molecules of the heat map."""
    masks = (
        pa_compute.is_in(batch[name], pa.array(sorted(rows), pa.int64()))
        for name, rows in zip((LEFT_ROW, RIGHT_ROW), heatmap_rows, strict=True)
    )
    names = [name for name in batch.schema.names if name in ANSWER_COLUMNS]
    rows: list[dict[str, Any]] = batch.filter(pa_compute.and_(*masks)).select(names).to_pylist()
    return rows


def _count_reasons(summary: Summary, failed: pa.RecordBatch) -> None:
    columns = (failed[name].to_pylist() for name in (ROW, STATUS, ERROR))
    for row, status, error in zip(*columns, strict=True):
        reason = f"{status}: {_general_reason(error)}"
        if reason in summary.reasons or len(summary.reasons) < _MAX_REASONS:
            summary.reasons[reason] += 1
            summary.examples.setdefault(reason, row)


def _general_reason(error: str | None) -> str:
    """Strip the molecule and the row from an error, so that equal reasons are counted together."""
    return _MOLECULE_PREFIX.sub("", _ROW_PREFIX.sub("", error or ""))


def _push_top_k(
    top: list[_TopEntry], batch: pa.RecordBatch, scores: NDArray[np.float64], top_k: int
) -> None:
    """Push a batch's rows into the heap of the best rows.

    Args:
        top: Heap of at most ``top_k`` entries, the worst one first; changed in place.
        batch: Rows to push.
        scores: Score of each row, ``[rows]``; rows with NaN are excluded.
        top_k: Number of rows to keep.
    """
    if not top_k:
        return
    worst_score = top[0][0] if len(top) == top_k else -np.inf
    for index in np.flatnonzero(scores >= worst_score):  # excludes NaN
        key = float(scores[index]), -int(batch[ROW][int(index)].as_py())
        if len(top) == top_k and key <= top[0][:2]:
            continue  # skips the costly conversion of rows with equal scores
        entry = (*key, batch.slice(int(index), 1).to_pylist()[0])
        (heapq.heappush if len(top) < top_k else heapq.heapreplace)(top, entry)


def _scores(task: Task, batch: pa.RecordBatch, ranking: Ranking) -> NDArray[np.float64]:
    """Score the rows of a batch, ``[rows]``: larger is better, NaN excludes a row."""
    if isinstance(task.kind, Number):
        sign = -1 if ranking.smallest else 1
        scores = sign * _float_column(batch, VALUE)
        if ranking.threshold is not None:
            scores[scores < sign * ranking.threshold] = np.nan
        return scores
    scores = _float_column(batch, CONFIDENCE)
    labels = task.kind.labels if isinstance(task.kind, Choice) else ()
    label = ranking.label or (labels[-1].name if len(labels) == 2 else None)
    if label is not None:
        scores[np.array(batch[LABEL].to_pylist(), dtype=object) != label] = np.nan
    if ranking.threshold is not None:
        scores[scores < ranking.threshold] = np.nan
    return scores
