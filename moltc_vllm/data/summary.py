"""Summary of a data set: rows, molecules, targets, lengths of texts and widths of intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from moltc_vllm.data.dataset import Row, read_split_rows, write_answer
from moltc_vllm.data.intervals import choose_intervals
from moltc_vllm.data.keys import unordered
from moltc_vllm.data.splits import TRAIN, VALID, DatasetSplits
from moltc_vllm.tasks import Choice, Number, Task, get_task


def summarize(dataset: DatasetSplits, folder: Path) -> dict[str, Any]:
    """Summarize one data set; targets, texts and intervals are those of its train split.

    Args:
        dataset: Data set as `read_splits` returns it.
        folder: Folder of the data files. The file is read again to count the removed rows.

    Returns:
        Values that can be written as JSON. ``rows`` has four counts by split: ``all`` in the file,
        ``missing`` without a target, ``held_back`` removed because another row holds out their
        pair, and ``kept``.

    Raises:
        DataError: If the file cannot be read.
    """
    spec, task = dataset.spec, get_task(dataset.spec.task)
    in_file: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    for split, row in read_split_rows(folder / spec.file, task):
        in_file[split] += 1
        missing[split] += row.target is None
    kept = [row for rows in dataset.rows.values() for row in rows]
    train = dataset.rows[TRAIN]
    summary: dict[str, Any] = {
        "name": spec.name,
        "task": task.name,
        "rows": {
            split: {
                "all": in_file[split],
                "missing": missing[split],
                "held_back": dataset.held_out[split],
                "kept": len(rows),
            }
            for split, rows in dataset.rows.items()
        },
        "pairs": len({unordered(row.molecules) for row in kept}),
        "molecules": len({smiles for row in kept for smiles in row.molecules}),
        "molecules_by_role": {
            role: len({row.molecules[index] for row in kept})
            for index, role in enumerate(task.roles)
        },
        "target": _summarize_targets(task, train) if train else None,
        "text": _summarize_lengths(task, train, spec.name) if train else None,
    }
    if isinstance(task.kind, Number):
        summary["intervals"] = _summarize_intervals(task.kind, dataset)
    return summary


def numeric_targets(rows: Sequence[Row]) -> list[float]:
    """Return the targets of the rows of a number task."""
    return [row.target for row in rows if isinstance(row.target, float)]


def count_labels(kind: Choice, rows: Sequence[Row]) -> dict[str, int]:
    """Count the rows of each label by its name, most frequent first; labels without rows have 0."""
    counts = Counter(row.target for row in rows)
    by_name = {label.name: counts[label.id] for label in kind.labels}
    return dict(sorted(by_name.items(), key=lambda item: (-item[1], item[0])))


def _summarize_targets(task: Task, rows: Sequence[Row]) -> dict[str, Any]:
    if isinstance(task.kind, Number):
        return {"unit": task.kind.unit, **_moments(numeric_targets(rows))}
    if isinstance(task.kind, Choice):
        counts = count_labels(task.kind, rows)
        shares = [count / len(rows) for count in counts.values()]
        entropy = -sum(share * math.log2(share) for share in shares if share)
        return {
            "labels": counts,
            "largest_share": shares[0],
            "smallest_share": shares[-1],
            "balance": entropy / math.log2(len(counts)),  # 1 if all labels are equally frequent
        }
    lists = [row.target for row in rows if isinstance(row.target, tuple)]
    distinct_terms = {term for terms in lists for term in terms}
    return {
        "terms": len(distinct_terms),
        "terms_per_row": _moments([len(terms) for terms in lists]),
    }


def _moments(values: Sequence[float]) -> dict[str, float]:
    array = np.asarray(values, dtype=np.float64)
    return {
        "mean": float(array.mean()),
        "std": float(array.std()),
        "min": float(array.min()),
        "median": float(np.median(array)),
        "max": float(array.max()),
    }


def _summarize_lengths(
    task: Task, rows: Sequence[Row], dataset: str
) -> dict[str, dict[str, float]]:
    """Summarize the lengths of the answer texts."""
    texts = [write_answer(task, row, dataset) for row in rows]
    characters, words = [len(text) for text in texts], [len(text.split()) for text in texts]
    return {"characters": _moments(characters), "words": _moments(words)}


def _summarize_intervals(kind: Number, dataset: DatasetSplits) -> dict[str, Any]:
    """Return the widths of the task table, and those of the rule for the train and valid splits."""
    summary: dict[str, Any] = {"table": {"width": kind.interval_width, "scale": kind.scale}}
    for name, split in (("rule", TRAIN), ("rule_on_valid", VALID)):
        try:
            summary[name] = asdict(choose_intervals(numeric_targets(dataset.rows[split])))
        except ValueError as error:  # too few rows for a spread
            summary[name] = {"error": str(error)}
            continue
        if not math.isfinite(summary[name]["tail"]):
            summary[name]["tail"] = None  # JSON has no infinity
    return summary
