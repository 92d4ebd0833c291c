"""Heat map of a screen: a sample of its first molecules against a sample of its second ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moltc_vllm.screening.heatmap import Cell, Heatmap
from moltc_vllm.screening.inputs import MoleculeColumn
from moltc_vllm.screening.parts import LEFT_ROW, RIGHT_ROW
from moltc_vllm.screening.screen import Screen
from moltc_vllm.tasks import Answer, Choice, Number, Task

_MAX_ROWS, _MAX_COLUMNS = 40, 60
_MIN_FILLED = 0.5  # a limited or shuffled screen fills few cells, and its map would show nothing
_MAX_SMILES = 60  # maximum length of a SMILES that replaces a missing name


def select_heatmap_rows(screen: Screen) -> tuple[set[int], set[int]]:
    """Select the rows of both tables, from 1, that the heat map shows; none for pair tables."""
    if screen.inputs.is_pair_table:
        return set(), set()
    return (
        _evenly_spaced(len(screen.inputs.first.store), _MAX_ROWS),
        _evenly_spaced(len(screen.inputs.second.store), _MAX_COLUMNS),
    )


def _evenly_spaced(size: int, limit: int) -> set[int]:
    count = min(limit, size)
    return {position * size // count + 1 for position in range(count)}


def build_heatmap(screen: Screen, rows: Sequence[Mapping[str, Any]]) -> Heatmap | None:
    """Build the heat map of a screen.

    Args:
        screen: Screen that the rows belong to.
        rows: Rows of the parts that pair two of the selected molecules.

    Returns:
        The heat map with similar rows and columns next to each other; ``None`` if too few of its
        cells have an answer.
    """
    first_rows = sorted({row[LEFT_ROW] for row in rows})
    second_rows = sorted({row[RIGHT_ROW] for row in rows})
    if len(rows) < _MIN_FILLED * len(first_rows) * len(second_rows) * _expected_share(screen):
        return None
    cells = _cells(screen, rows, first_rows, second_rows)
    if all(cell.number is None for cell in cells.values()):
        return None
    inputs = screen.inputs
    return Heatmap(
        [_axis_label(inputs.first, row - 1) for row in first_rows],
        [_axis_label(inputs.second, row - 1) for row in second_rows],
        cells,
        _caption(screen, len(first_rows), len(second_rows)),
    ).clustered()


def _expected_share(screen: Screen) -> float:
    """Return the share of the cells that a complete screen fills.

    A table against itself has each pair of molecules once, so half of the map stays empty.
    """
    return 0.5 if screen.inputs.first.store is screen.inputs.second.store else 1.0


def _cells(
    screen: Screen,
    rows: Sequence[Mapping[str, Any]],
    first_rows: Sequence[int],
    second_rows: Sequence[int],
) -> dict[tuple[int, int], Cell]:
    map_row = {row: index for index, row in enumerate(first_rows)}
    map_column = {row: index for index, row in enumerate(second_rows)}
    cells = {}
    for row in rows:
        answer = screen.layout.answer(row)
        position = map_row[row[LEFT_ROW]], map_column[row[RIGHT_ROW]]
        cells[position] = Cell.of(answer, _cell_number(screen.task, answer))
    return cells


def _cell_number(task: Task, answer: Answer) -> float | None:
    """Return the number that colors a cell: the value, or the probability of the last label."""
    if isinstance(task.kind, Number):
        return answer.value
    label = _positive_label(task)
    if label is None or answer.confidence is None:
        return None
    return answer.confidence if answer.label == label else 1 - answer.confidence


def _positive_label(task: Task) -> str | None:
    """Return the last of two labels; ``None`` if the task is not binary."""
    if not isinstance(task.kind, Choice) or len(task.kind.labels) != 2:
        return None
    return task.kind.labels[-1].name


def _caption(screen: Screen, first_count: int, second_count: int) -> str:
    kind = screen.task.kind
    if isinstance(kind, Number):
        caption = f"{kind.phrase} in {kind.unit}"
    else:
        caption = f"probability of the answer “{_positive_label(screen.task)}”"
    first_total, second_total = len(screen.inputs.first.store), len(screen.inputs.second.store)
    if first_count < first_total or second_count < second_total:
        caption += (
            f"; {first_count} of {first_total:,} and {second_count} of {second_total:,} molecules, "
            "evenly spaced in their files"
        )
    return f"{caption}; rows and columns are clustered by their answers"


def _axis_label(molecules: MoleculeColumn, index: int) -> str:
    """Return a molecule's name, or else its SMILES, or else its row."""
    if name := molecules.name(index):
        return name
    record = molecules.store[index]
    if record.error is not None:
        return f"{molecules.row_label} {index + 1}"
    smiles = record.cells[molecules.column]
    return smiles if len(smiles) <= _MAX_SMILES else f"{smiles[: _MAX_SMILES - 1]}…"
