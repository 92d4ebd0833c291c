"""The results of `benchmarks/accuracy.py` as a table and a plot, made from its file alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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

_SAME = (
    *("data", "part", "split", "method", "seed", "settings", "learned_from"),
    *("related_held_back", "data_sha256", "bootstrap"),
)
"""What the results of one run have in common."""

_COLOURS = {
    "trivial": "#8a8f98",
    "fingerprints": "#3caea3",
    "chemprop": "#f6a53b",
    "moltc": "#20639b",
}


def read_results(path: Path) -> list[Result]:
    """All lines of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Run(NamedTuple):
    """What one method, in one way, came to on one part of a data set."""

    part: str
    method: str
    results: dict[str, Result]  # by metric

    @property
    def any(self) -> Result:
        """What all its results have in common can be read from this one."""
        return next(iter(self.results.values()))


def markdown(results: Sequence[Result]) -> str:
    """One table of numbers, and one of labels for each set of metrics."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in _runs(results):
        columns = NUMBERS if "mae" in run.results else LABELS
        groups.setdefault(tuple(name for name in columns if name in run.results), []).append(run)
    return "\n\n".join(_table(metrics, runs) for metrics, runs in groups.items())


def _runs(results: Iterable[Result]) -> list[Run]:
    """Results of the same run together; data sets and methods in their order."""
    found: dict[str, dict[str, Result]] = {}
    for result in results:
        same = json.dumps([result.get(key) for key in _SAME], sort_keys=True)
        found.setdefault(same, {})[result["metric"]] = result
    runs = [Run(_part(one), _method(one), by) for by in found.values() for one in _first(by)]
    places = {part: place for place, part in enumerate(dict.fromkeys(run.part for run in runs))}
    order = list(_COLOURS)
    runs.sort(key=lambda run: (places[run.part], order.index(run.any["method"])))
    alike = Counter((run.part, run.method) for run in runs)
    return [
        run._replace(method=f"{run.method}, {_settings(run.any)}")
        if alike[run.part, run.method] > 1
        else run
        for run in runs
    ]


def _first(results: dict[str, Result]) -> list[Result]:
    return list(results.values())[:1]


def _settings(result: Result) -> str:
    """All settings, for runs that cannot be told apart by their names."""
    settings = {**result["settings"], "data": result["data_sha256"][:8]}
    return ", ".join(f"{name} {value}" for name, value in settings.items())


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


def _table(metrics: Sequence[str], runs: Sequence[Run]) -> str:
    names = [(NUMBERS | LABELS)[metric] for metric in metrics]
    header = ["data", "method", *names, "rows", "learned from", "CPU s"]
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)]]
    for run in runs:
        first = run.any
        unit = next((result["unit"] for result in run.results.values() if result["unit"]), None)
        lines.append(
            [
                run.part + (f", {unit}" if unit else ""),
                run.method,
                *(_value(run.results.get(metric)) for metric in metrics),
                _rows(first),
                "" if first["train_rows"] is None else f"{first['train_rows']:,}",
                "" if first["train_cpu_s"] is None else f"{first['train_cpu_s']:,.0f}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rows(result: Result) -> str:
    """How many rows were asked about; errors of numbers and AUROC are of the answered ones only."""
    asked, answered = result["asked"], result["answered"]
    return f"{asked:,}" if asked == answered else f"{answered:,} of {asked:,} answered"


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

    panels: dict[str, list[Run]] = {}
    for run in _runs(results):
        panels.setdefault(run.part, []).append(run)
    mains = {part: _main(runs) for part, runs in panels.items()}
    panels = {
        part: [run for run in runs if mains[part] in run.results]
        for part, runs in panels.items()
        if mains[part]
    }
    if not panels:
        return
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    tallest = max(len(shown) for shown in panels.values())
    height = rows * (1.1 + 0.3 * tallest)
    figure = Figure(figsize=(4.2 * columns, height), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False).flat
    for axes in list(every)[len(panels) :]:
        axes.remove()
    for axes, (title, shown) in zip(figure.axes, panels.items(), strict=True):
        main = mains[title]
        for place, run in enumerate(shown):
            result = run.results[main]
            value, low, high = result["value"], result["low"], result["high"]
            spread = None if low is None else [[max(0, value - low)], [max(0, high - value)]]
            colour = _COLOURS[result["method"]]
            axes.errorbar(value, place, xerr=spread, fmt="o", color=colour, capsize=3)
        axes.set_yticks(range(len(shown)), [run.method for run in shown], fontsize=8)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        unit = shown[0].results[main]["unit"]
        axes.set_xlabel((NUMBERS | LABELS)[main] + (f", {unit}" if unit else ""), fontsize=9)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _main(runs: Sequence[Run]) -> str:
    """The main metric of a part; empty if no run has any."""
    return next((name for name in MAIN if any(name in run.results for run in runs)), "")
