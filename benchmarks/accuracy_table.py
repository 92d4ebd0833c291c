"""The results of `benchmarks/accuracy.py` as a table and a plot, made from its file alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Result = dict[str, Any]

NUMBERS = {"mae": "MAE", "rmse": "RMSE", "r2": "R²"}
LABELS = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "aupr": "AUPR",
    "f1": "F1",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
}
UNSEEN = {"one_unseen": "one unseen", "both_unseen": "both unseen"}
MAIN = ("rmse", "auroc", "accuracy")
"""What is plotted: the first of these that a data set has."""

_COLOURS = {
    "trivial": "#8a8f98",
    "fingerprints": "#3caea3",
    "chemprop": "#f6a53b",
    "moltc": "#20639b",
}


def read_results(path: Path) -> list[Result]:
    """All lines of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def markdown(results: Sequence[Result]) -> str:
    """One table of numbers, and one of labels for each set of metrics."""
    groups: dict[tuple[str, ...], list[list[Result]]] = {}
    for run in _runs(results):
        found = {result["metric"] for result in run}
        columns = NUMBERS if "mae" in found else LABELS
        groups.setdefault(tuple(name for name in columns if name in found), []).append(run)
    return "\n\n".join(_table(metrics, runs) for metrics, runs in groups.items())


def _runs(results: Iterable[Result]) -> list[list[Result]]:
    """Results of one method on one part of a data set, together; data sets in their order."""
    runs: dict[str, list[Result]] = {}
    for result in results:
        runs.setdefault(json.dumps([_part(result), _method(result)]), []).append(result)
    places: dict[str, int] = {}
    for part, *_ in map(json.loads, runs):
        places.setdefault(part, len(places))
    order = list(_COLOURS)
    return sorted(
        runs.values(), key=lambda run: (places[_part(run[0])], order.index(run[0]["method"]))
    )


def _part(result: Result) -> str:
    """What is scored, with the share of molecules that were set aside for it."""
    unseen, settings = UNSEEN.get(result["part"]), result["settings"]
    if unseen is None:
        return str(result["data"])
    seed = f", split seed {settings['split_seed']}" if settings["split_seed"] else ""
    return f"{result['data']}, {unseen} ({settings['fraction']:.0%} aside{seed})"


def _method(result: Result) -> str:
    """Name of a method, with what is not its usual way."""
    settings, name = result["settings"], result["method"]
    said = [settings.get("model", name)]
    if name == "chemprop":
        said.append(f"{settings['epochs']} epochs")
    if name == "fingerprints":
        said.append(f"{settings['trees']} trees")
    said += [f"with {other}" for other in (result["learned_from"] or [])[1:]]
    if result["related_held_back"] and result["part"] == "test":
        said.append("rows as for one model of all")
    if result["seed"]:
        said.append(f"seed {result['seed']}")
    return ", ".join(said)


def _table(metrics: Sequence[str], runs: Sequence[Sequence[Result]]) -> str:
    names = [(NUMBERS | LABELS)[metric] for metric in metrics]
    header = ["data", "method", *names, "rows", "learned from", "CPU s"]
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)]]
    for run in runs:
        first, by_name = run[0], {result["metric"]: result for result in run}
        unit = next((result["unit"] for result in run if result["unit"]), None)
        lines.append(
            [
                _part(first) + (f", {unit}" if unit else ""),
                _method(first),
                *(_value(by_name.get(metric)) for metric in metrics),
                f"{first['asked']:,}",
                "" if first["train_rows"] is None else f"{first['train_rows']:,}",
                "" if first["train_cpu_s"] is None else f"{first['train_cpu_s']:,.0f}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _value(result: Result | None) -> str:
    """A value and its interval, in the digits that the value has."""
    if result is None:
        return ""
    value, low, high = result["value"], result["low"], result["high"]
    digits = 3 if abs(value) < 1.5 else 2 if abs(value) < 10 else 1
    shown = f"{value:z.{digits}f}"  # z: never "-0.000"
    return shown if low is None else f"{shown} ({low:z.{digits}f} to {high:z.{digits}f})"


def write_plot(path: Path, results: Sequence[Result]) -> None:
    """One panel for each part of a data set: its main metric, with the interval."""
    from matplotlib.figure import Figure

    panels: dict[str, list[Result]] = {}
    for run in _runs(results):
        by_name = {result["metric"]: result for result in run}
        main = next((by_name[name] for name in MAIN if name in by_name), None)
        if main is not None:
            panels.setdefault(_part(main), []).append(main)
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    tallest = max(len(shown) for shown in panels.values())
    height = rows * (1.1 + 0.3 * tallest)
    figure = Figure(figsize=(4.2 * columns, height), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False).flat
    for axes in list(every)[len(panels) :]:
        axes.remove()
    for axes, (title, shown) in zip(figure.axes, panels.items(), strict=True):
        for place, result in enumerate(shown):
            value, low, high = result["value"], result["low"], result["high"]
            spread = None if low is None else [[max(0, value - low)], [max(0, high - value)]]
            colour = _COLOURS[result["method"]]
            axes.errorbar(value, place, xerr=spread, fmt="o", color=colour, capsize=3)
        axes.set_yticks(range(len(shown)), [_method(result) for result in shown], fontsize=8)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        unit = f", {shown[0]['unit']}" if shown[0]["unit"] else ""
        axes.set_xlabel((NUMBERS | LABELS)[shown[0]["metric"]] + unit, fontsize=9)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
