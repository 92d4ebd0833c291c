"""Tables with a row per data set and a column per method, from the results of `accuracy.py`.

A cell has the mean over seeds, and the interval from the lowest to the highest end of the seeds'
95 % bootstrap intervals. The best value of each row is bold, whichever method it belongs to. Of a
method that ran with several settings, and of several moltc models, the last ones in the file count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from accuracy_table import Result
from baselines.methods import METHODS, MOLTC

FRACTION = 0.2
"""Fraction of held-out molecules of the rows that the tables show."""

TITLES = {
    ("published", "test"): "Test parts: both molecules occur in other train pairs",
    ("unseen", "one_unseen"): "One unseen molecule",
    ("unseen", "both_unseen"): "Two unseen molecules",
    ("scaffold", "one_unseen"): "One molecule with an unseen scaffold",
    ("scaffold", "both_unseen"): "Two molecules with unseen scaffolds",
}
"""Headings by split and part, in the order of the tables."""

DATASETS = {
    "combisolv_exp": "CombiSolv-Exp",
    "freesolv": "FreeSolv",
    "solubility": "solubility",
    "deep4chem_absorption": "Deep4Chem absorption",
    "deep4chem_emission": "Deep4Chem emission",
    "deep4chem_lifetime": "Deep4Chem lifetime",
    "deep4chem_quantum_yield": "Deep4Chem quantum yield",
    "chchminer": "ChChMiner",
    "zhangddi": "ZhangDDI",
    "drugbank86": "DrugBank, 86 types",
}
"""Names of data sets in the order of the rows."""

METRICS = {"rmse": "RMSE", "auroc": "AUROC", "accuracy": "accuracy"}
"""Metrics to show; the first one that a data set has is used."""

LOWER_IS_BETTER = {"rmse"}
DOCS = {
    "overview": "README.md",
    "summary": "docs/model-card.md",
    "full": "docs/benchmarks/accuracy.md",
}
"""File of each kind of table; the table stands between two comments, see `write_docs`."""

OVERVIEW_PARTS = (("published", "test"), ("unseen", "one_unseen"))
"""Parts that the overview shows side by side."""

_MARK = "<!-- accuracy {kind}: written by benchmarks/accuracy.py -->"
_END = "<!-- end of accuracy -->"


class Cell(NamedTuple):
    """Value of a metric with its interval; ``low`` and ``high`` are ``None`` without an interval.

    Attributes:
        value: Mean over seeds.
        low: Lowest end of the seeds' intervals.
        high: Highest end of the seeds' intervals.
        note: Setting of the method that its name does not tell, e.g. fewer epochs.
    """

    value: float
    low: float | None
    high: float | None
    note: str


class SummaryRow(NamedTuple):
    """One data set in one part of a split.

    Attributes:
        split: Name of the split.
        part: Name of the part.
        data: Name of the data set.
        split_seed: Seed of the selection of held-out molecules.
        pairs: Number of scored pairs.
        metric: Name of the metric.
        unit: Unit of the metric, if it has one.
        cells: Cells by method.
    """

    split: str
    part: str
    data: str
    split_seed: int
    pairs: int
    metric: str
    unit: str | None
    cells: dict[str, Cell]

    @property
    def label(self) -> str:
        """Name of the data set, with the seed of the split unless it is 0."""
        seed = f", split seed {self.split_seed}" if self.split_seed else ""
        return f"{DATASETS[self.data]}{seed}"

    @property
    def metric_label(self) -> str:
        """Name of the metric and its unit."""
        return METRICS[self.metric] + (f", {self.unit}" if self.unit else "")

    def best(self, methods: Iterable[str]) -> str | None:
        """Return which of the methods has the best value."""
        known = [method for method in methods if method in self.cells]
        sign = 1 if self.metric in LOWER_IS_BETTER else -1
        return min(known, key=lambda method: sign * self.cells[method].value, default=None)


def summarize(results: Sequence[Result]) -> list[SummaryRow]:
    """Select the results that the tables show, and average them over seeds.

    Args:
        results: Lines of a results file.
    """
    runs: dict[tuple[str, str, str, int], dict[str, list[Result]]] = {}
    for result in results:
        split, part, data = result["split"], result["part"], result["data"]
        settings = result["settings"]
        is_shown = (split, part) in TITLES and data in DATASETS and result["metric"] in METRICS
        if is_shown and settings.get("fraction", FRACTION) == FRACTION:
            row = runs.setdefault((split, part, data, settings.get("split_seed", 0)), {})
            row.setdefault(result["method"], []).append(result)
    parts, datasets = list(TITLES), list(DATASETS)
    order = sorted(runs, key=lambda key: (parts.index(key[:2]), datasets.index(key[2]), key[3]))
    return [_summary_row(key, runs[key]) for key in order]


def _summary_row(key: tuple[str, str, str, int], by_method: dict[str, list[Result]]) -> SummaryRow:
    split, part, data, split_seed = key
    every = [result for results in by_method.values() for result in results]
    measured = {result["metric"] for result in every}
    metric = next(name for name in METRICS if name in measured)
    first = next(result for result in every if result["metric"] == metric)
    cells = {}
    for method, results in by_method.items():
        own = [result for result in results if result["metric"] == metric]
        if own:
            cells[method] = _cell([line for line in own if _settings(line) == _settings(own[-1])])
    return SummaryRow(split, part, data, split_seed, first["asked"], metric, first["unit"], cells)


def _settings(result: Result) -> str:
    """Return the settings that are equal in two runs that differ in their seed only."""
    keys = ("settings", "learned_from", "related_held_back", "data_sha256", "bootstrap")
    return json.dumps([result[key] for key in keys], sort_keys=True)


def _cell(results: Sequence[Result]) -> Cell:
    """Average the results of several seeds."""
    value = sum(result["value"] for result in results) / len(results)
    ends = [result for result in results if result["low"] is not None]
    low = min((result["low"] for result in ends), default=None)
    high = max((result["high"] for result in ends), default=None)
    epochs = results[0]["settings"].get("epochs")
    is_reduced = results[0]["method"] == "chemprop" and epochs < CHEMPROP_EPOCHS
    return Cell(value, low, high, f"{epochs} epochs" if is_reduced else "")


CHEMPROP_EPOCHS = 50
"""chemprop's own number of epochs; a smaller one is stated in its cell."""


def summary_markdown(results: Sequence[Result]) -> str:
    """Format one table per split, with a column per method.

    Args:
        results: Lines of a results file.
    """
    rows = summarize(results)
    sections = []
    for split, part in TITLES:
        own = [row for row in rows if (row.split, row.part) == (split, part)]
        if own:
            sections.append(f"### {TITLES[split, part]}\n\n{_full_table(own)}")
    return "\n\n".join(sections)


def short_markdown(results: Sequence[Result]) -> str:
    """Format one table of all splits, with the moltc model and the best baseline of each row.

    Args:
        results: Lines of a results file.
    """
    lines = [["part", "data set", "pairs", "metric", "moltc-mini", "best baseline", ""]]
    lines.append(["---", "---", "---:", "---", "---:", "---:", "---"])
    for row in summarize(results):
        if MOLTC not in row.cells:
            continue
        baseline, best = row.best(METHODS), row.best([MOLTC, *METHODS])
        cells = [_format(row, method, best) if method else "" for method in (MOLTC, baseline)]
        name = METHODS[baseline].label if baseline else ""
        part = SHORT_TITLES[row.split, row.part]
        lines.append([part, row.label, f"{row.pairs:,}", row.metric_label, *cells, name])
    return _markdown(lines)


SHORT_TITLES = {
    ("published", "test"): "test",
    ("unseen", "one_unseen"): "one unseen",
    ("unseen", "both_unseen"): "both unseen",
    ("scaffold", "one_unseen"): "one unseen scaffold",
    ("scaffold", "both_unseen"): "both unseen scaffolds",
}


def overview_markdown(results: Sequence[Result]) -> str:
    """Format the moltc model and the best baseline side by side, for two parts.

    Args:
        results: Lines of a results file.
    """
    titles = [SHORT_TITLES[part] for part in OVERVIEW_PARTS]
    header = ["data set", "metric"]
    header += [name for title in titles for name in (f"moltc-mini, {title}", "best baseline")]
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)]]
    rows = [row for row in summarize(results) if not row.split_seed]
    by_part = {(row.split, row.part, row.data): row for row in rows}
    for data in DATASETS:
        own = [by_part.get((*part, data)) for part in OVERVIEW_PARTS]
        measured = [row for row in own if row is not None and MOLTC in row.cells]
        if measured:
            cells = [cell for row in own for cell in _overview_cells(row)]
            lines.append([DATASETS[data], measured[0].metric_label, *cells])
    return _markdown(lines)


def _overview_cells(row: SummaryRow | None) -> list[str]:
    """Format the moltc model and the best baseline with its name, without intervals."""
    if row is None:
        return ["", ""]
    baseline, best = row.best(METHODS), row.best([MOLTC, *METHODS])
    texts = [_format(row, method, best, intervals=False) for method in (MOLTC, baseline) if method]
    if baseline:
        texts[-1] += f" ({METHODS[baseline].label})"
    return texts if baseline else [*texts, ""]


def _full_table(rows: Sequence[SummaryRow]) -> str:
    methods = [method for method in (MOLTC, *METHODS) if any(method in row.cells for row in rows)]
    names = ["moltc-mini" if method == MOLTC else METHODS[method].label for method in methods]
    lines = [["data set", "pairs", "metric", *names]]
    lines.append(["---", "---:", "---", *["---:"] * len(methods)])
    for row in rows:
        best = row.best(methods)
        cells = [_format(row, method, best) for method in methods]
        lines.append([row.label, f"{row.pairs:,}", row.metric_label, *cells])
    return _markdown(lines)


def _markdown(lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _format(row: SummaryRow, method: str, best: str | None, *, intervals: bool = True) -> str:
    """Format a cell: the value, bold if it is the best one, and its interval."""
    cell = row.cells.get(method)
    if cell is None:
        return ""
    digits = 3 if row.metric != "rmse" or cell.value < 0.3 else 2 if cell.value < 10 else 1
    value = f"{cell.value:.{digits}f}"
    text = f"**{value}**" if method == best else value
    if intervals and cell.low is not None:
        text += f" ({cell.low:.{digits}f} to {cell.high:.{digits}f})"
    return f"{text}, {cell.note}" if cell.note else text


def write_docs(root: Path, results: Sequence[Result]) -> list[Path]:
    """Replace the tables in README and documentation, between their two comments.

    Args:
        root: Folder of the repository.
        results: Lines of a results file.

    Returns:
        Files that have been written; a file without the comments is left as it is.
    """
    tables = {
        "overview": overview_markdown(results),
        "summary": short_markdown(results),
        "full": summary_markdown(results),
    }
    written = []
    for kind, name in DOCS.items():
        begin, path = _MARK.format(kind=kind), root / name
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(_END)}", re.DOTALL)
        table = f"{begin}\n\n{tables[kind]}\n\n{_END}"
        text = path.read_text(encoding="utf-8")
        new = pattern.sub(lambda _, table=table: table, text)
        if new != text:
            path.write_text(new, encoding="utf-8")
            written.append(path)
    return written
