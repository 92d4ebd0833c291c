"""First molecules against second ones: what a heat map shows, with alike ones side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moltc_vllm.tasks import Answer

_ROOMY = 12  # columns that leave space for words in the cells


class Cell(NamedTuple):
    """A pair on a heat map.

    Attributes:
        number: Decides the colour; ``None`` if there is no answer.
        words: The whole answer.
        short: What stands in the cell, if there is space.
    """

    number: float | None
    words: str
    short: str

    @classmethod
    def of(cls, answer: Answer, number: float | None) -> Cell:
        """A cell about an answer."""
        return cls(number, answer.result, answer.status if number is None else f"{number:.3g}")


@dataclass(frozen=True)
class Heatmap:
    """A heat map.

    Attributes:
        first: Names of the first molecules, one for each row.
        second: Names of the second molecules, one for each column.
        cells: By row and column; what is missing is left blank.
        said: What it shows, and of what it is a sample.
    """

    first: Sequence[str]
    second: Sequence[str]
    cells: Mapping[tuple[int, int], Cell]
    said: str = ""

    @property
    def roomy(self) -> bool:
        """Whether words fit into the cells."""
        return len(self.second) <= _ROOMY

    def rows(self) -> Iterator[tuple[str, list[Cell | None]]]:
        """Each row's name and cells."""
        for place, name in enumerate(self.first):
            yield name, [self.cells.get((place, other)) for other in range(len(self.second))]

    def colour(self, number: float) -> str:
        """A CSS colour: blue for the smallest number, over white, to red for the largest."""
        low, high = self._bounds
        share = (number - low) / (high - low) if high > low else 0.5
        away = abs(2 * share - 1)
        return f"hsl({12 if share > 0.5 else 215} 75% {97 - 42 * away:.0f}%)"

    @cached_property
    def _bounds(self) -> tuple[float, float]:
        numbers = [cell.number for cell in self.cells.values() if cell.number is not None]
        return min(numbers, default=0.0), max(numbers, default=0.0)

    def clustered(self) -> Heatmap:
        """The same with rows and columns of alike numbers next to one another."""
        table = np.full((len(self.first), len(self.second)), np.nan)
        for place, cell in self.cells.items():
            if cell.number is not None:
                table[place] = cell.number
        rows, columns = _order(table), _order(table.T)
        new_row = {old: new for new, old in enumerate(rows)}
        new_column = {old: new for new, old in enumerate(columns)}
        return Heatmap(
            [self.first[place] for place in rows],
            [self.second[place] for place in columns],
            {(new_row[row], new_column[other]): cell for (row, other), cell in self.cells.items()},
            self.said,
        )


def _order(table: NDArray[np.float64]) -> list[int]:
    """Rows as the leaves of a tree of average linkage; unknown numbers are as the mean of all."""
    if len(table) < 3 or np.isnan(table).all():
        return list(range(len(table)))
    from scipy.cluster.hierarchy import leaves_list, linkage

    filled = np.where(np.isnan(table), np.nanmean(table), table)
    tree = linkage(filled, "average", optimal_ordering=True)
    return [int(place) for place in leaves_list(tree)]
