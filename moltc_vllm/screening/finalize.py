"""Finalize a screen: write ``summary.json``, ``top.csv`` and ``report.html`` beside its parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from moltc_vllm.screening import charts
from moltc_vllm.screening.config import Ranking
from moltc_vllm.screening.manifest import read_manifest
from moltc_vllm.screening.parts import LEFT_ROW, RIGHT_ROW, ROW
from moltc_vllm.screening.plan import PairIndex
from moltc_vllm.screening.report import Chart, Failure, Hit, Page, write_report
from moltc_vllm.screening.screen import Screen
from moltc_vllm.screening.screen_heatmap import build_heatmap, select_heatmap_rows
from moltc_vllm.screening.summary import Summary, read_run_figures, summarize, write_summary
from moltc_vllm.tasks import Number, Task

REPORT = "report.html"

_DRAWN_HITS = 48
_LISTED_REASONS = 20


def finalize(screen: Screen, ranking: Ranking, figures: Mapping[str, Any] | None = None) -> Summary:
    """Summarize the parts of a complete screen and write the three files beside them.

    Args:
        screen: Screen whose parts are all written.
        ranking: Ranking of the best rows.
        figures: Measurements of this run, e.g. its seconds. Default: those of the previous run.
    """
    heatmap_rows = select_heatmap_rows(screen)
    summary = summarize(screen.folder, screen.part_count, screen.task, ranking, heatmap_rows)
    figures = figures or read_run_figures(screen.folder)
    extra = {"task": screen.task.name, "parts": screen.part_count, "run": dict(figures)}
    write_summary(screen.folder, summary, screen.layout.schema.names, extra)
    write_report(screen.folder / REPORT, _build_page(screen, ranking, summary, figures))
    return summary


def _build_page(
    screen: Screen, ranking: Ranking, summary: Summary, figures: Mapping[str, Any]
) -> Page:
    task = screen.task
    hits = summary.top[:_DRAWN_HITS]
    order = "smallest values first" if ranking.smallest else "best first"
    if ranking.allowed_familiarity:
        order += f", {' or '.join(ranking.allowed_familiarity)} molecules only"
    share = f", {len(hits)} of the {len(summary.top):,} in top.csv" if summary.top else ""
    reasons = summary.reasons.most_common(_LISTED_REASONS)
    return Page(
        title=f"{task.title}: {summary.rows:,} pairs",
        settings=_settings(screen),
        note=f"{task.name} is {task.caution}." if task.caution is not None else "",
        counts={"rows": summary.rows, **dict(summary.statuses.most_common())},
        facts={
            **_value_facts(summary, task),
            **{f"{name} molecules": f"{n:,}" for name, n in summary.familiarities.most_common()},
            **{f"last run {name}": str(figure) for name, figure in figures.items()},
        },
        charts=_charts(summary, task),
        heatmap=build_heatmap(screen, summary.heatmap_rows),
        hits=[_hit(screen, row) for row in hits],
        hits_title=f"Top pairs, {order}{share}",
        failures=[Failure(reason, rows, summary.examples[reason]) for reason, rows in reasons],
        roles=task.roles if len(task.roles) == 2 else ("first", "second"),
    )


def _settings(screen: Screen) -> dict[str, str]:
    """Return the settings in the manifest, flattened to one entry per value."""
    content = read_manifest(screen.folder)
    entries: dict[str, str] = {"moltc_vllm": content["moltc_vllm"]}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, nested in value.items():
                add(f"{name} {key}".strip(), nested)
        elif value is not None:
            entries[name] = value if isinstance(value, str) else json.dumps(value)

    add("", content["screen"])
    return entries


def _value_facts(summary: Summary, task: Task) -> dict[str, str]:
    if summary.mean is None or not isinstance(task.kind, Number):
        return {}
    values = {"mean": summary.mean, "smallest": summary.low, "largest": summary.high}
    return {name: f"{value:g} {task.kind.unit}" for name, value in values.items()}


def _charts(summary: Summary, task: Task) -> list[Chart]:
    drawn = []
    values, confidences = summary.values.numbers, summary.confidences.numbers
    if len(values) and isinstance(task.kind, Number):
        title = f"Answers{_sample_note(len(values), summary)}"
        drawn.append(charts.histogram(title, values, task.kind.phrase, task.kind.unit))
    if summary.labels:
        drawn.append(charts.bars("Labels", summary.labels))
    if len(confidences):
        title = f"Confidence{_sample_note(len(confidences), summary)}"
        drawn.append(charts.histogram(title, confidences, "confidence"))
    return drawn


def _sample_note(shown: int, summary: Summary) -> str:
    answered = summary.statuses["ok"]
    return f", random sample of {shown:,} of {answered:,}" if shown < answered else ""


def _hit(screen: Screen, row: Mapping[str, Any]) -> Hit:
    inputs, names = screen.inputs, ("", "")
    if inputs.is_pair_table:
        pair_index = PairIndex(row[ROW], row[ROW] - 1, row[ROW] - 1)
    else:
        pair_index = PairIndex(row[ROW], row[LEFT_ROW] - 1, row[RIGHT_ROW] - 1)
        names = inputs.first.name(pair_index.first), inputs.second.name(pair_index.second)
    answer = screen.layout.answer(row)
    return Hit(names, inputs.molecules(pair_index), answer, row[ROW])
