"""Table and plot of the results that `benchmarks/accuracy.py` wrote."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Result = dict[str, Any]
"""Line of the results: one metric of one run."""

NUMBER_METRICS = {"mae": "MAE", "rmse": "RMSE", "r2": "R²"}
LABEL_METRICS = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "aupr": "AUPR",
    "f1": "F1",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
}
UNSEEN_PARTS = {"one_unseen": "one unseen", "both_unseen": "both unseen"}
PLOTTED_METRICS = ("rmse", "auroc", "accuracy")
"""Metrics to plot; the first one that a data set has is used."""

_RUN_KEYS = (
    *("data", "part", "split", "method", "seed", "settings", "learned_from"),
    *("related_held_back", "data_sha256", "bootstrap"),
)
"""Keys whose values are equal in all results of one run."""

_COLORS = {
    "trivial": "#8a8f98",
    "rates": "#b5b9c0",
    "kernel-ridge": "#8e6bbf",
    "descriptors": "#1f7a72",
    "fingerprints": "#3caea3",
    "morgan-mlp": "#d96459",
    "rdkit-mlp": "#e89a91",
    "minimol-mlp": "#a63446",
    "gin": "#5f8b3c",
    "smiles-lm": "#9cb95c",
    "chemprop": "#f6a53b",
    "moltc": "#20639b",
}
"""Colors of methods, in the order of the table."""


def read_results(path: Path) -> list[Result]:
    """Read all results of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Run(NamedTuple):
    """Results of one method on one part of a data set.

    Attributes:
        part: Label of the part.
        method: Label of the method.
        results: Results by metric.
    """

    part: str
    method: str
    results: dict[str, Result]

    @property
    def first_result(self) -> Result:
        """Any of the results, for the values that all of them share."""
        return next(iter(self.results.values()))


def markdown(results: Sequence[Result]) -> str:
    """Format results as Markdown tables, with one table for each set of metrics."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in _runs(results):
        columns = NUMBER_METRICS if "mae" in run.results else LABEL_METRICS
        groups.setdefault(tuple(name for name in columns if name in run.results), []).append(run)
    return "\n\n".join(_table(metrics, runs) for metrics, runs in groups.items())


def _runs(results: Iterable[Result]) -> list[Run]:
    """Group results by run, ordered by data set (in the file's order) and method."""
    grouped: dict[str, dict[str, Result]] = {}
    for result in results:
        key = json.dumps([result.get(key) for key in _RUN_KEYS], sort_keys=True)
        grouped.setdefault(key, {})[result["metric"]] = result
    runs = [_run(by_metric) for by_metric in grouped.values()]
    part_ranks = {part: rank for rank, part in enumerate(dict.fromkeys(run.part for run in runs))}
    methods = list(_COLORS)
    runs.sort(key=lambda run: (part_ranks[run.part], methods.index(run.first_result["method"])))
    label_counts = Counter((run.part, run.method) for run in runs)
    return [
        run._replace(method=f"{run.method}, {_all_settings(run.first_result)}")
        if label_counts[run.part, run.method] > 1
        else run
        for run in runs
    ]


def _run(results: dict[str, Result]) -> Run:
    first = next(iter(results.values()))
    return Run(_part_label(first), _method_label(first), results)


def _all_settings(result: Result) -> str:
    """Format all settings, to distinguish runs whose labels are equal."""
    settings = {**result["settings"], "data": result["data_sha256"][:8]}
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _part_label(result: Result) -> str:
    """Format the scored part, with the fraction of held-out molecules."""
    unseen, settings = UNSEEN_PARTS.get(result["part"]), result["settings"]
    if unseen is None:
        return str(result["data"])
    seed = f", split seed {settings['split_seed']}" if settings["split_seed"] else ""
    scaffold = " scaffold" if result["split"] == "scaffold" else ""
    return f"{result['data']}, {unseen}{scaffold} ({settings['fraction']:.0%} held out{seed})"


def _method_label(result: Result) -> str:
    """Format the method with its settings that differ from the usual ones."""
    settings, name = result["settings"], result["method"]
    words = [settings.get("model", name)]
    if name == "chemprop":
        words.append(f"{settings['epochs']} epochs")
    if name == "fingerprints":
        words.append(f"{settings['trees']} trees")
    words += [f"with {other}" for other in (result["learned_from"] or [])[1:]]
    if result["related_held_back"] and result["part"] == "test":
        words.append("without rows that related data sets hold out")
    if result["seed"]:
        words.append(f"seed {result['seed']}")
    return ", ".join(words)


def _table(metrics: Sequence[str], runs: Sequence[Run]) -> str:
    names = [(NUMBER_METRICS | LABEL_METRICS)[metric] for metric in metrics]
    header = ["data", "method", *names, "rows", "train rows", "CPU s"]
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)]]
    for run in runs:
        first = run.first_result
        unit = next((result["unit"] for result in run.results.values() if result["unit"]), None)
        lines.append(
            [
                run.part + (f", {unit}" if unit else ""),
                run.method,
                *(_format_value(run.results.get(metric)) for metric in metrics),
                _format_rows(first),
                "" if first["train_rows"] is None else f"{first['train_rows']:,}",
                "" if first["train_cpu_s"] is None else f"{first['train_cpu_s']:,.0f}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _format_rows(result: Result) -> str:
    """Format the number of rows; errors of numbers and AUROC are over the answered ones only."""
    asked, answered = result["asked"], result["answered"]
    return f"{asked:,}" if asked == answered else f"{answered:,} of {asked:,} answered"


def _format_value(result: Result | None) -> str:
    """Format a value and its interval, with digits that suit the value's size."""
    if result is None:
        return ""
    value, low, high = result["value"], result["low"], result["high"]
    digits = 3 if abs(value) < 1.5 else 2 if abs(value) < 10 else 1
    text = f"{value:z.{digits}f}"  # z avoids "-0.000"
    return text if low is None else f"{text} ({low:z.{digits}f} to {high:z.{digits}f})"


def write_plot(path: Path, results: Sequence[Result]) -> None:
    """Plot one metric of each part of a data set with its intervals, one panel per part.

    Args:
        path: PNG file.
        results: Results to plot; without any, no file is written.
    """
    from matplotlib.figure import Figure

    panels: dict[str, list[Run]] = {}
    for run in _runs(results):
        panels.setdefault(run.part, []).append(run)
    metrics = {part: _plotted_metric(runs) for part, runs in panels.items()}
    panels = {
        part: [run for run in runs if metrics[part] in run.results]
        for part, runs in panels.items()
        if metrics[part]
    }
    if not panels:
        return
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    max_runs = max(len(runs) for runs in panels.values())
    height = rows * (1.1 + 0.3 * max_runs)
    figure = Figure(figsize=(4.2 * columns, height), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).flat
    for axes in list(all_axes)[len(panels) :]:
        axes.remove()
    for axes, (part, runs) in zip(figure.axes, panels.items(), strict=True):
        _plot_panel(axes, part, runs, metrics[part])
    figure.savefig(path, dpi=150)


def _plot_panel(axes: Any, title: str, runs: Sequence[Run], metric: str) -> None:
    for index, run in enumerate(runs):
        result: Mapping[str, Any] = run.results[metric]
        value, low, high = result["value"], result["low"], result["high"]
        error = None if low is None else [[max(0, value - low)], [max(0, high - value)]]
        color = _COLORS[result["method"]]
        axes.errorbar(value, index, xerr=error, fmt="o", color=color, capsize=3)
    axes.set_yticks(range(len(runs)), [run.method for run in runs], fontsize=8)
    axes.set_ylim(len(runs) - 0.5, -0.5)
    unit = runs[0].results[metric]["unit"]
    label = (NUMBER_METRICS | LABEL_METRICS)[metric]
    axes.set_xlabel(label + (f", {unit}" if unit else ""), fontsize=9)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _plotted_metric(runs: Sequence[Run]) -> str:
    """Return the metric of a panel, or an empty text if no run has one."""
    return next((name for name in PLOTTED_METRICS if any(name in run.results for run in runs)), "")
