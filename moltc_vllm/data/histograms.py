"""A histogram of a data set's targets, by split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moltc_vllm.data.splits import TRAIN, Parts
from moltc_vllm.data.summary import labels, numbers
from moltc_vllm.tasks import Choice, Number, get_task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"train": "#20639b", "valid": "#e0a030", "test": "#c0504d"}
_BINS = 60
_MOST_LABELS = 25


def write_histogram(path: Path, parts: Parts) -> None:
    """Draw how the targets of each split are spread.

    As shares of each split's rows, so that the splits can be compared: numbers on a logarithmic
    axis where the intervals grow, labels, and of lists how many terms they have.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    source, task = parts.source, get_task(parts.source.task)
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    if isinstance(task.kind, Choice):
        _draw_labels(axes, task.kind, parts)
    elif isinstance(task.kind, Number):
        unit = f", {task.kind.unit}" if task.kind.unit else ""
        values = {split: np.array(numbers(rows)) for split, rows in parts.rows.items()}
        _draw_values(axes, values, logarithmic=task.kind.scale == "1-2-5")
        axes.set_xlabel(f"{task.kind.phrase}{unit}")
    else:
        _draw_values(axes, {split: _sizes(parts, split) for split in parts.rows})
        axes.set_xlabel("terms in a row's list")
    axes.spines[["top", "right"]].set_visible(False)
    counts = ", ".join(f"{len(rows):,} {split}" for split, rows in parts.rows.items())
    axes.set_title(f"{source.name}: {task.title}\n{counts}", fontsize=10)
    figure.savefig(path, dpi=120)


def _sizes(parts: Parts, split: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    found = [row.target for row in parts.rows[split]]
    return np.array([float(len(one)) for one in found if isinstance(one, tuple)])


def _draw_values(
    axes: Axes,
    values: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]],
    *,
    logarithmic: bool = False,
) -> None:
    everything = np.concatenate(list(values.values()))
    if logarithmic:
        everything = everything[everything > 0]
    if not len(everything):
        return
    low, high = everything.min(), everything.max()
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
                color=_COLOURS[split],
                label=split,
                **style,
            )
    axes.set_ylabel("share of the split's rows")
    axes.legend(frameon=False)


def _draw_labels(axes: Axes, kind: Choice, parts: Parts) -> None:
    shown = {
        split: labels(kind, rows) for split, rows in parts.rows.items() if rows
    }  # each in an order of its own
    names = list(next(iter(shown.values()), {}))[:_MOST_LABELS]
    places = np.arange(len(names))
    height = 0.8 / max(len(shown), 1)
    for number, (split, count) in enumerate(shown.items()):
        total = sum(count.values())
        shares = [count[name] / total for name in names]
        axes.barh(places + number * height, shares, height, color=_COLOURS[split], label=split)
    axes.set_yticks(places + 0.4, names, fontsize=6 if len(names) > 5 else 9)
    axes.invert_yaxis()
    left = len(kind.labels) - len(names)
    more = f", {left} rarer labels not shown" if left else ""
    axes.set_xlabel(f"share of the split's rows{more}")
    axes.legend(frameon=False)
