"""Where a screen's molecules are: the tables, their molecule columns, and what travels along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moltc_vllm.screening.plan import PairIndex
from moltc_vllm.screening.row_store import RowStore
from moltc_vllm.tables.table_readers import SMILES, TableError


@dataclass(frozen=True, slots=True)
class MoleculeColumn:
    """One molecule of every pair.

    Attributes:
        store: Its table.
        column: The place of the column that has its SMILES.
        name: What errors call its row: ``row``, ``left row``, ``right row``.
    """

    store: RowStore
    column: int
    name: str


class UnreadableRowError(ValueError):
    """A pair that cannot be asked about; the message says why."""


@dataclass(frozen=True, slots=True)
class PairTables:
    """Both sides of all pairs.

    Attributes:
        first: Of the first molecule.
        second: Of the second molecule; the same table, if pairs were given as rows.
    """

    first: MoleculeColumn
    second: MoleculeColumn

    @property
    def is_pair_table(self) -> bool:
        """Whether both molecules of a pair are in one row."""
        return self.first.name == self.second.name

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the cells that travel along with a pair."""
        if self.is_pair_table:
            return self.first.store.columns
        return (
            *(f"left_{name}" for name in self.first.store.columns),
            *(f"right_{name}" for name in self.second.store.columns),
        )

    def cells(self, index: PairIndex) -> tuple[str | None, ...]:
        """What travels along with a pair; nothing from rows that could not be read."""
        first = self._cells(self.first, index.first)
        return first if self.is_pair_table else (*first, *self._cells(self.second, index.second))

    def molecules(self, index: PairIndex) -> tuple[str, str]:
        """The SMILES of a pair.

        Raises:
            UnreadableRowError: If one of its rows could not be read.
        """
        return self._smiles(self.first, index.first), self._smiles(self.second, index.second)

    def _smiles(self, side: MoleculeColumn, place: int) -> str:
        record = side.store[place]
        if record.error is not None:
            raise UnreadableRowError(f"{side.name} {place + 1}: {record.error}")
        return record.cells[side.column]

    def _cells(self, side: MoleculeColumn, place: int) -> tuple[str | None, ...]:
        record = side.store[place]
        return record.cells if record.error is None else (None,) * len(side.store.columns)


def find_column(name: str, columns: Sequence[str], wanted: str | None) -> int:
    """The column of a table that has the molecules.

    Args:
        name: Of the file.
        columns: Of the table.
        wanted: As the user named it; default: the only column, the one called ``smiles`` (of
            several, if in lower case: an SDF's own structures), or whose name has that in it.

    Raises:
        TableError: If there is none, or more than one could be meant.
    """
    if wanted is not None:
        if wanted not in columns:
            raise TableError(f"{name} has no column {wanted!r}; there are {', '.join(columns)}")
        return list(columns).index(wanted)
    if len(columns) == 1:
        return 0
    for is_meant in (
        lambda one: one.lower() == SMILES,
        lambda one: one == SMILES,
        lambda one: SMILES in one.lower(),
    ):
        found = [place for place, one in enumerate(columns) if is_meant(one)]
        if len(found) == 1:
            return found[0]
    raise TableError(
        f"{name}: which column has the molecules is not clear, name it with --columns; there are "
        f"{', '.join(columns)}"
    )
