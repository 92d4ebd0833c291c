"""Histograms of a data set's targets by split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moltc_vllm.data.splits import TRAIN, DatasetSplits
from moltc_vllm.data.summary import count_labels, numeric_targets
from moltc_vllm.tasks import Choice, Number, get_task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = {"train": "#20639b", "valid": "#e0a030", "test": "#c0504d"}
_BINS = 60
_MAX_LABELS = 25

Values = np.ndarray[tuple[int], np.dtype[np.float64]]


def write_histogram(path: Path, dataset: DatasetSplits) -> None:
    """Draw the distribution of the targets in each split, as fractions of the split's rows.

    Numbers whose intervals grow have a logarithmic axis. For labels, bars show their frequencies;
    for terms, the histogram is of the number of terms per row.

    Args:
        path: Image file to write; its suffix decides the format.
        dataset: Data set to draw.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    task = get_task(dataset.spec.task)
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    if isinstance(task.kind, Choice):
        _draw_labels(axes, task.kind, dataset)
    elif isinstance(task.kind, Number):
        unit = f", {task.kind.unit}" if task.kind.unit else ""
        values = {split: np.array(numeric_targets(rows)) for split, rows in dataset.rows.items()}
        _draw_values(axes, values, logarithmic=task.kind.scale == "1-2-5")
        axes.set_xlabel(f"{task.kind.phrase}{unit}")
    else:
        _draw_values(axes, {split: _term_counts(dataset, split) for split in dataset.rows})
        axes.set_xlabel("terms per row")
    axes.spines[["top", "right"]].set_visible(False)
    counts = ", ".join(f"{len(rows):,} {split}" for split, rows in dataset.rows.items())
    axes.set_title(f"{dataset.spec.name}: {task.title}\n{counts}", fontsize=10)
    figure.savefig(path, dpi=120)


def _term_counts(dataset: DatasetSplits, split: str) -> Values:
    targets = [row.target for row in dataset.rows[split]]
    return np.array([float(len(terms)) for terms in targets if isinstance(terms, tuple)])


def _draw_values(axes: Axes, values: dict[str, Values], *, logarithmic: bool = False) -> None:
    all_values = np.concatenate(list(values.values()))
    if logarithmic:
        all_values = all_values[all_values > 0]
    if not len(all_values):
        return
    low, high = all_values.min(), all_values.max()
    if logarithmic:
        axes.set_xscale("log")
        edges = np.geomspace(low, high * 1.0001, _BINS + 1)
    else:
        edges = np.linspace(low, max(high, low + 1e-9), _BINS + 1)
    for split, array in values.items():
        if len(array):
            weights = np.full(len(array), 1 / len(array))
            style: dict[str, Any] = {"histtype": "step", "linewidth": 1.4}
            if split == TRAIN:
                style = {"histtype": "stepfilled", "alpha": 0.35}
            axes.hist(
                array,
                edges.tolist(),
                weights=weights,
                color=_COLORS[split],
                label=split,
                **style,
            )
    axes.set_ylabel("fraction of the split's rows")
    axes.legend(frameon=False)


def _draw_labels(axes: Axes, kind: Choice, dataset: DatasetSplits) -> None:
    counts = {split: count_labels(kind, rows) for split, rows in dataset.rows.items() if rows}
    # All splits have the order of the first one, which is the train split unless that is empty.
    names = list(next(iter(counts.values()), {}))[:_MAX_LABELS]
    positions = np.arange(len(names))
    height = 0.8 / max(len(counts), 1)
    for index, (split, by_name) in enumerate(counts.items()):
        total = sum(by_name.values())
        shares = [by_name[name] / total for name in names]
        color = _COLORS[split]
        axes.barh(positions + index * height, shares, height, color=color, label=split)
    axes.set_yticks(positions + 0.4, names, fontsize=6 if len(names) > 5 else 9)
    axes.invert_yaxis()
    hidden = len(kind.labels) - len(names)
    note = f", {hidden} rarer labels not shown" if hidden else ""
    axes.set_xlabel(f"fraction of the split's rows{note}")
    axes.legend(frameon=False)
