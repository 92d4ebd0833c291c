"""Heat map of first against second molecules, with similar rows and columns side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moltc_vllm.tasks import Answer

_MAX_TEXT_COLUMNS = 12  # more columns leave no space for text in the cells


class Cell(NamedTuple):
    """Pair on a heat map.

    Attributes:
        number: Number that determines the color; ``None`` if the pair failed.
        tooltip: Complete answer.
        text: Short answer, shown in the cell if there is space.
    """

    number: float | None
    tooltip: str
    text: str

    @classmethod
    def of(cls, answer: Answer, number: float | None) -> Cell:
        """Return the cell of an answer, colored by a number."""
        return cls(number, answer.result, answer.status if number is None else f"{number:.3g}")


@dataclass(frozen=True)
class Heatmap:
    """Heat map of first against second molecules.

    Attributes:
        first: Names of the first molecules, one per row.
        second: Names of the second molecules, one per column.
        cells: Cells by row and column; missing ones are left blank.
        caption: Meaning of the colors, and the sample that is shown.
    """

    first: Sequence[str]
    second: Sequence[str]
    cells: Mapping[tuple[int, int], Cell]
    caption: str = ""

    @property
    def shows_text(self) -> bool:
        """Whether the cells have space for text."""
        return len(self.second) <= _MAX_TEXT_COLUMNS

    def rows(self) -> Iterator[tuple[str, list[Cell | None]]]:
        """Yield the name and the cells of each row."""
        for row, name in enumerate(self.first):
            yield name, [self.cells.get((row, column)) for column in range(len(self.second))]

    def color(self, number: float) -> str:
        """Return a CSS color: blue for the smallest number, over white, to red for the largest."""
        low, high = self._bounds
        share = (number - low) / (high - low) if high > low else 0.5
        distance = abs(2 * share - 1)
        return f"hsl({12 if share > 0.5 else 215} 75% {97 - 42 * distance:.0f}%)"

    @cached_property
    def _bounds(self) -> tuple[float, float]:
        numbers = [cell.number for cell in self.cells.values() if cell.number is not None]
        return min(numbers, default=0.0), max(numbers, default=0.0)

    def clustered(self) -> Heatmap:
        """Return a copy with similar rows, and similar columns, next to each other."""
        numbers = np.full((len(self.first), len(self.second)), np.nan)
        for position, cell in self.cells.items():
            if cell.number is not None:
                numbers[position] = cell.number
        rows, columns = _cluster_order(numbers), _cluster_order(numbers.T)
        new_row = {old: new for new, old in enumerate(rows)}
        new_column = {old: new for new, old in enumerate(columns)}
        return Heatmap(
            [self.first[row] for row in rows],
            [self.second[column] for column in columns],
            {
                (new_row[row], new_column[column]): cell
                for (row, column), cell in self.cells.items()
            },
            self.caption,
        )


def _cluster_order(numbers: NDArray[np.float64]) -> list[int]:
    """Order rows as the leaves of an average-linkage tree.

    Args:
        numbers: Numbers of the cells, ``[rows, columns]``; NaN counts as the mean of all.
    """
    if len(numbers) < 3 or np.isnan(numbers).all():
        return list(range(len(numbers)))
    from scipy.cluster.hierarchy import leaves_list, linkage

    filled = np.where(np.isnan(numbers), np.nanmean(numbers), numbers)
    tree = linkage(filled, "average", optimal_ordering=True)
    return [int(leaf) for leaf in leaves_list(tree)]
