"""What is in a data set: rows, molecules, targets, lengths of texts and widths of intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from moltc_vllm.data.dataset import Row, read_split_rows, written
from moltc_vllm.data.intervals import choose_intervals
from moltc_vllm.data.keys import unordered
from moltc_vllm.data.splits import TRAIN, VALID, Parts
from moltc_vllm.tasks import Choice, Number, Task, get_task


def summarize(parts: Parts, folder: Path) -> dict[str, Any]:
    """Count and measure one data set; everything about targets is of its train part.

    Args:
        parts: As `read_parts` gives them.
        folder: Of the data files: the file is read again for what was left out.

    Returns:
        Only what JSON has. ``rows`` by split: ``all`` of the file, ``missing`` without a target,
        ``held_back`` because another data set holds the pair back, ``kept``.

    Raises:
        DataError: If the file cannot be read.
    """
    source, task = parts.source, get_task(parts.source.task)
    in_file: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    for split, row in read_split_rows(folder / source.file, task):
        in_file[split] += 1
        missing[split] += row.target is None
    kept = [row for rows in parts.rows.values() for row in rows]
    train = parts.rows[TRAIN]
    summary: dict[str, Any] = {
        "name": source.name,
        "task": task.name,
        "rows": {
            split: {
                "all": in_file[split],
                "missing": missing[split],
                "held_back": parts.held_back[split],
                "kept": len(rows),
            }
            for split, rows in parts.rows.items()
        },
        "pairs": len({unordered(row.molecules) for row in kept}),
        "molecules": len({smiles for row in kept for smiles in row.molecules}),
        "molecules_by_role": {
            role: len({row.molecules[place] for row in kept})
            for place, role in enumerate(task.roles)
        },
        "target": _target(task, train) if train else None,
        "text": _lengths(task, train, parts.source.name) if train else None,
    }
    if isinstance(task.kind, Number):
        summary["intervals"] = _intervals(task.kind, parts)
    return summary


def numbers(rows: Sequence[Row]) -> list[float]:
    """The targets of rows of a number task."""
    return [row.target for row in rows if isinstance(row.target, float)]


def labels(kind: Choice, rows: Sequence[Row]) -> dict[str, int]:
    """Rows of each label by its name, the most frequent first; also of those without any."""
    count = Counter(row.target for row in rows)
    found = {label.name: count[label.id] for label in kind.labels}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _target(task: Task, rows: Sequence[Row]) -> dict[str, Any]:
    if isinstance(task.kind, Number):
        return {"unit": task.kind.unit, **_moments(numbers(rows))}
    if isinstance(task.kind, Choice):
        count = labels(task.kind, rows)
        shares = [n / len(rows) for n in count.values()]
        entropy = -sum(share * math.log2(share) for share in shares if share)
        return {
            "labels": count,
            "largest_share": shares[0],
            "smallest_share": shares[-1],
            "balance": entropy / math.log2(len(count)),  # 1: all labels are equally frequent
        }
    lists = [row.target for row in rows if isinstance(row.target, tuple)]
    terms = {term for one in lists for term in one}
    return {"terms": len(terms), "terms_per_row": _moments([len(one) for one in lists])}


def _moments(values: Sequence[float]) -> dict[str, float]:
    array = np.asarray(values, dtype=np.float64)
    return {
        "mean": float(array.mean()),
        "std": float(array.std()),
        "min": float(array.min()),
        "median": float(np.median(array)),
        "max": float(array.max()),
    }


def _lengths(task: Task, rows: Sequence[Row], source: str) -> dict[str, dict[str, float]]:
    """Lengths of the answers."""
    texts = [written(task, row, source) for row in rows]
    characters, words = [len(text) for text in texts], [len(text.split()) for text in texts]
    return {"characters": _moments(characters), "words": _moments(words)}


def _intervals(kind: Number, parts: Parts) -> dict[str, Any]:
    """The widths of the task table, and what the rule gives for the train and the valid part."""
    found: dict[str, Any] = {"table": {"width": kind.interval_width, "scale": kind.scale}}
    for name, split in (("rule", TRAIN), ("rule_on_valid", VALID)):
        try:
            found[name] = asdict(choose_intervals(numbers(parts.rows[split])))
        except ValueError as error:  # too few rows to have a spread
            found[name] = {"error": str(error)}
            continue
        if not math.isfinite(found[name]["tail"]):
            found[name]["tail"] = None  # JSON has no infinity
    return found
