"""What a screen came to, read from its parts: counts, reasons, and the rows at the top."""

from __future__ import annotations

import csv
import heapq
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pa_parquet

from moltc_vllm.screen.parts import CONFIDENCE, ERROR, LABEL, ROW, STATUS, VALUE, part_path
from moltc_vllm.tasks import Choice, Number, Task

_BATCH = 4096
_REASONS = 20
_MOLECULE = re.compile(r"^molecule '.*': (?=\w+: )", re.DOTALL)
_WHERE = re.compile(r"^(?:left |right )?row \d+: ")


@dataclass(frozen=True, slots=True)
class Ranking:
    """Which rows are at the top.

    Numbers by their value; labels by the confidence in ``label``.

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


@dataclass(slots=True)
class Summary:
    """What is in the parts.

    Attributes:
        rows: All of them.
        statuses: Rows of each status.
        reasons: Why rows have no answer: the most frequent reasons, without what they are about.
        labels: Rows of each label.
        mean: Of the numbers.
        low: The smallest number.
        high: The largest number.
        top: The best rows, best first; columns as in the parts.
    """

    rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    top: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Rows without an answer."""
        return self.rows - self.statuses["ok"]

    def as_json(self) -> dict[str, Any]:
        """Everything but the rows at the top."""
        return {
            "rows": self.rows,
            "statuses": dict(self.statuses.most_common()),
            "reasons": dict(self.reasons.most_common(_REASONS)),
            "labels": dict(self.labels.most_common()),
            "values": None
            if self.mean is None
            else {"mean": self.mean, "low": self.low, "high": self.high},
        }


def summarise(folder: Path, parts: int, task: Task, ranking: Ranking) -> Summary:
    """Read all parts once, a few rows at a time.

    Args:
        folder: Of the parts.
        parts: How many there are.
        task: What was asked.
        ranking: Which rows are wanted.
    """
    found = Summary()
    total, count = 0.0, 0
    best: list[tuple[float, int, dict[str, Any]]] = []
    for row in _rows(folder, parts):
        found.rows += 1
        found.statuses[row[STATUS]] += 1
        if row[STATUS] != "ok":
            reason = f"{row[STATUS]}: {_general(row[ERROR])}"
            if reason in found.reasons or len(found.reasons) < 10_000:  # whatever is in them
                found.reasons[reason] += 1
            continue
        if isinstance(task.kind, Choice):
            found.labels[row[LABEL]] += 1
        elif isinstance(task.kind, Number):
            total, count = total + row[VALUE], count + 1
            found.low = row[VALUE] if found.low is None else min(found.low, row[VALUE])
            found.high = row[VALUE] if found.high is None else max(found.high, row[VALUE])
        score = _score(task, row, ranking)
        if score is not None and ranking.most:
            # Of equal ones the first row; a heap drops its smallest.
            entry = (score, -row[ROW], row)
            if len(best) < ranking.most:
                heapq.heappush(best, entry)
            else:
                heapq.heappushpop(best, entry)
    found.mean = total / count if count else None
    found.top = [row for *_, row in sorted(best, key=lambda entry: entry[:2], reverse=True)]
    return found


def write_summary(folder: Path, summary: Summary, more: dict[str, Any]) -> None:
    """Write ``summary.json`` and ``top.csv``.

    Args:
        folder: Of the parts.
        summary: Of them.
        more: What else is to stand in the former.
    """
    text = json.dumps({**summary.as_json(), **more}, indent=2, ensure_ascii=False)
    (folder / "summary.json").write_text(text + "\n", "utf-8")
    with (folder / "top.csv").open("w", encoding="utf-8", newline="") as file:
        if summary.top:
            writer = csv.DictWriter(file, list(summary.top[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(summary.top)


def _rows(folder: Path, parts: int) -> Iterator[dict[str, Any]]:
    for number in range(parts):
        with pa_parquet.ParquetFile(part_path(folder, number)) as file:
            for batch in file.iter_batches(batch_size=_BATCH, use_threads=False):
                yield from batch.to_pylist()


def _general(error: str | None) -> str:
    """A reason without the molecule or the row that it is about."""
    return _MOLECULE.sub("", _WHERE.sub("", error or ""))


def _score(task: Task, row: dict[str, Any], ranking: Ranking) -> float | None:
    """How good a row is: larger is better; ``None`` if it is not wanted."""
    if isinstance(task.kind, Number):
        value = row[VALUE]
        score = -value if ranking.smallest else value
        least = ranking.threshold
        if least is not None and score < (-least if ranking.smallest else least):
            return None
        return float(score)
    if not isinstance(task.kind, Choice) or row[CONFIDENCE] is None:
        return None
    labels = task.kind.labels
    wanted = ranking.label or (labels[-1].name if len(labels) == 2 else None)
    if wanted is not None and row[LABEL] != wanted:
        return None
    if ranking.threshold is not None and row[CONFIDENCE] < ranking.threshold:
        return None
    return float(row[CONFIDENCE])
