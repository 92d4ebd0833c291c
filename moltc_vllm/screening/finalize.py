"""From a folder of parts to what people look at: ``summary.json``, ``top.csv``, ``report.html``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from moltc_vllm.screening import charts
from moltc_vllm.screening.heatmap import Cell, Heatmap
from moltc_vllm.screening.inputs import MoleculeColumn
from moltc_vllm.screening.manifest import read_manifest
from moltc_vllm.screening.parts import LEFT_ROW, RIGHT_ROW, ROW, answer_of
from moltc_vllm.screening.plan import PairIndex
from moltc_vllm.screening.report import Chart, Failure, Hit, Page, write_report
from moltc_vllm.screening.run import Screen
from moltc_vllm.screening.summary import Ranking, Summary, read_run, summarize, write_summary
from moltc_vllm.tasks import Answer, Choice, Number, Task

REPORT = "report.html"

_DRAWN = 48  # pairs of the top
_ROWS, _COLUMNS = 40, 60  # of the heat map
_FILLED = 0.5  # of its cells at least, or there is none: a limited or shuffled screen has few
_REASONS = 20
_SHORT = 60  # characters of a SMILES in place of a name
_NAMES = ("name", "title", "compound", "drug", "solvent", "chemical", "id")


def finalize(screen: Screen, ranking: Ranking, figures: Mapping[str, Any] | None = None) -> Summary:
    """Read the parts and write the three files beside them.

    Args:
        screen: All of whose parts are there.
        ranking: What is at the top.
        figures: Of this run, e.g. seconds; for ``summary.json`` and the report.
    """
    heatmap_rows = _evenly(screen)
    found = summarize(screen.folder, screen.parts, screen.task, ranking, heatmap_rows)
    figures = figures or read_run(screen.folder)  # of nothing there are none
    more = {"task": screen.task.name, "parts": screen.parts, "run": dict(figures)}
    write_summary(screen.folder, found, screen.layout.schema.names, more)
    write_report(screen.folder / REPORT, _page(screen, ranking, found, figures))
    return found


def _page(screen: Screen, ranking: Ranking, found: Summary, figures: Mapping[str, Any]) -> Page:
    task = screen.task
    shown = found.top[:_DRAWN]
    order = "smallest values first" if ranking.smallest else "best first"
    of_all = f", {len(shown)} of the {len(found.top):,} in top.csv" if found.top else ""
    reasons = found.reasons.most_common(_REASONS)
    return Page(
        title=f"{task.title}: {found.rows:,} pairs",
        settings=_settings(screen),
        counts={"rows": found.rows, **dict(found.statuses.most_common())},
        facts={
            **_facts(found, task),
            **{f"last run {name}": str(one) for name, one in figures.items()},
        },
        charts=_charts(found, task),
        heatmap=_grid(screen, found),
        hits=[_hit(screen, row) for row in shown],
        hits_title=f"The top, {order}{of_all}",
        failures=[Failure(name, count, found.examples[name]) for name, count in reasons],
        roles=task.roles if len(task.roles) == 2 else ("first", "second"),
    )


def _settings(screen: Screen) -> dict[str, str]:
    """What the manifest says, one line for each value."""
    content = read_manifest(screen.folder)
    lines: dict[str, str] = {"moltc_vllm": content["moltc_vllm"]}

    def put(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                put(f"{name} {key}".strip(), inner)
        elif value is not None:
            lines[name] = value if isinstance(value, str) else json.dumps(value)

    put("", content["screen"])
    return lines


def _facts(found: Summary, task: Task) -> dict[str, str]:
    if found.mean is None or not isinstance(task.kind, Number):
        return {}
    names = {"mean": found.mean, "smallest": found.low, "largest": found.high}
    return {name: f"{value:g} {task.kind.unit}" for name, value in names.items()}


def _charts(found: Summary, task: Task) -> list[Chart]:
    made = []
    values, sure = found.values.numbers, found.confidences.numbers
    if len(values) and isinstance(task.kind, Number):
        title = f"Answers{_of(len(values), found)}"
        made.append(charts.histogram(title, values, task.kind.phrase, task.kind.unit))
    if found.labels:
        made.append(charts.bars("Labels", found.labels))
    if len(sure):
        title = f"Confidence{_of(len(sure), found)}"
        made.append(charts.histogram(title, sure, "confidence"))
    return made


def _of(shown: int, found: Summary) -> str:
    answered = found.statuses["ok"]
    return f", a random {shown:,} of {answered:,}" if shown < answered else ""


def _evenly(screen: Screen) -> tuple[set[int], set[int]]:
    """Rows of both tables, from 1, that stand on the heat map."""
    if screen.inputs.is_pair_table:
        return set(), set()

    def spaced(side: MoleculeColumn, most: int) -> set[int]:
        size = len(side.store)
        count = min(most, size)
        return {place * size // count + 1 for place in range(count)}

    return spaced(screen.inputs.first, _ROWS), spaced(screen.inputs.second, _COLUMNS)


def _grid(screen: Screen, found: Summary) -> Heatmap | None:
    first = sorted({row[LEFT_ROW] for row in found.heatmap_rows})
    second = sorted({row[RIGHT_ROW] for row in found.heatmap_rows})
    if len(found.heatmap_rows) < _FILLED * len(first) * len(second) * _share(screen):
        return None
    places = (
        {row: place for place, row in enumerate(first)},
        {row: place for place, row in enumerate(second)},
    )
    cells = {}
    for row in found.heatmap_rows:
        answer = answer_of(screen.task, row)
        place = places[0][row[LEFT_ROW]], places[1][row[RIGHT_ROW]]
        cells[place] = Cell.of(answer, _number(screen.task, answer))
    if all(cell.number is None for cell in cells.values()):
        return None
    sides = screen.inputs.first, screen.inputs.second
    sizes = [len(side.store) for side in sides]
    said = _meaning(screen.task)
    if len(first) < sizes[0] or len(second) < sizes[1]:
        said += (
            f"; {len(first)} of {sizes[0]:,} and {len(second)} of {sizes[1]:,} molecules, evenly "
            "spaced in their files"
        )
    said += "; rows and columns are clustered by their answers"
    names = [
        [_name(side, row - 1) for row in rows_of]
        for side, rows_of in zip(sides, (first, second), strict=True)
    ]
    return Heatmap(names[0], names[1], cells, said).clustered()


def _share(screen: Screen) -> float:
    """Of a table against itself every two molecules are asked about once."""
    return 0.5 if screen.inputs.first.store is screen.inputs.second.store else 1.0


def _number(task: Task, answer: Answer) -> float | None:
    """What a cell's colour says: the value, or how likely the last of two labels is."""
    if isinstance(task.kind, Number):
        return answer.value
    if not _is_binary(task) or answer.confidence is None:
        return None
    return answer.confidence if answer.label == _last(task) else 1 - answer.confidence


def _is_binary(task: Task) -> bool:
    return isinstance(task.kind, Choice) and len(task.kind.labels) == 2


def _last(task: Task) -> str:
    assert isinstance(task.kind, Choice)
    return task.kind.labels[-1].name


def _meaning(task: Task) -> str:
    if isinstance(task.kind, Number):
        return f"{task.kind.phrase} in {task.kind.unit}"
    return f"how likely the answer is “{_last(task)}”"


def _hit(screen: Screen, row: Mapping[str, Any]) -> Hit:
    inputs = screen.inputs
    first, second = (
        (row[ROW] - 1, row[ROW] - 1)
        if inputs.is_pair_table
        else (row[LEFT_ROW] - 1, row[RIGHT_ROW] - 1)
    )
    names = ("", "")
    if not inputs.is_pair_table:
        names = _label(inputs.first, first), _label(inputs.second, second)
    answer: Answer = answer_of(screen.task, row)
    return Hit(names, inputs.molecules(PairIndex(row[ROW], first, second)), answer, row[ROW])


def _name(side: MoleculeColumn, place: int) -> str:
    """What a molecule is called on the heat map."""
    if label := _label(side, place):
        return label
    record = side.store[place]
    if record.error is not None:
        return f"{side.name} {place + 1}"
    smiles = record.cells[side.column]
    return smiles if len(smiles) <= _SHORT else f"{smiles[: _SHORT - 1]}…"


def _label(side: MoleculeColumn, place: int) -> str:
    """A molecule's own name, if its table has a column of such."""
    column = _name_column(side.store.columns)
    record = side.store[place]
    return "" if column is None or record.error is not None else record.cells[column]


def _name_column(columns: Sequence[str]) -> int | None:
    lowered = [one.lower() for one in columns]
    return next((lowered.index(name) for name in _NAMES if name in lowered), None)
