"""Input tables of a screen: molecule columns, and the columns copied to the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moltc_vllm.screening.plan import PairIndex
from moltc_vllm.screening.row_store import RowStore
from moltc_vllm.tables import SMILES, TableError

_NAME_COLUMNS = ("name", "title", "compound", "drug", "solvent", "chemical", "id")
"""Columns, in lower case, that hold a molecule's name; earlier ones are preferred."""


class UnreadableRowError(ValueError):
    """The row of a molecule could not be read; the message says which row and why."""


@dataclass(frozen=True, slots=True)
class MoleculeColumn:
    """Column that holds the first or the second molecule of every pair.

    Attributes:
        store: Rows of the table.
        column: Index of the column with the SMILES.
        row_label: Name of its rows in error messages: ``row``, ``left row`` or ``right row``.
    """

    store: RowStore
    column: int
    row_label: str

    def smiles(self, index: int) -> str:
        """Return the SMILES in a row, given its index from 0.

        Raises:
            UnreadableRowError: If the row cannot be read.
        """
        record = self.store[index]
        if record.error is not None:
            raise UnreadableRowError(f"{self.row_label} {index + 1}: {record.error}")
        return record.cells[self.column]

    def cells(self, index: int) -> tuple[str | None, ...]:
        """Return all cells of a row; ``None`` for each if the row cannot be read."""
        record = self.store[index]
        return record.cells if record.error is None else (None,) * len(self.store.columns)

    def name(self, index: int) -> str:
        """Return the name of the molecule in a row; empty if the table has no column of names."""
        record = self.store[index]
        if record.error is not None:
            return ""
        columns = [column.lower() for column in self.store.columns]
        column = next((columns.index(name) for name in _NAME_COLUMNS if name in columns), None)
        return "" if column is None else record.cells[column]


@dataclass(frozen=True, slots=True)
class PairTables:
    """Tables that hold the molecules of all pairs.

    Attributes:
        first: Column of the first molecules.
        second: Column of the second molecules; in the same table if each row holds a pair.
    """

    first: MoleculeColumn
    second: MoleculeColumn

    @property
    def is_pair_table(self) -> bool:
        """Whether each row of one table holds both molecules of a pair."""
        return self.first.row_label == self.second.row_label

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the input columns that are copied to the output."""
        if self.is_pair_table:
            return self.first.store.columns
        return (
            *(f"left_{name}" for name in self.first.store.columns),
            *(f"right_{name}" for name in self.second.store.columns),
        )

    def cells(self, pair_index: PairIndex) -> tuple[str | None, ...]:
        """Return the copied cells of a pair; ``None`` for those of rows that cannot be read."""
        first = self.first.cells(pair_index.first)
        return first if self.is_pair_table else (*first, *self.second.cells(pair_index.second))

    def molecules(self, pair_index: PairIndex) -> tuple[str, str]:
        """Return both SMILES of a pair.

        Raises:
            UnreadableRowError: If a row of the pair cannot be read.
        """
        return self.first.smiles(pair_index.first), self.second.smiles(pair_index.second)


def find_molecule_column(file_name: str, columns: Sequence[str], name: str | None) -> int:
    """Return the index of the column that holds the molecules.

    Args:
        file_name: Name of the file, for error messages.
        columns: Column names of the table.
        name: Name given by the user. Default: the only column, else the column called ``smiles`` in
            any case (in lower case if several match: the structures of an SDF), else the only one
            whose name contains ``smiles``.

    Raises:
        TableError: If no column fits, or more than one.
    """
    if name is not None:
        if name not in columns:
            raise TableError(
                f"{file_name} has no column {name!r}; its columns are {', '.join(columns)}"
            )
        return list(columns).index(name)
    if len(columns) == 1:
        return 0
    rules: tuple[Callable[[str], bool], ...] = (
        lambda column: column.lower() == SMILES,
        lambda column: column == SMILES,
        lambda column: SMILES in column.lower(),
    )
    for rule in rules:
        matches = [index for index, column in enumerate(columns) if rule(column)]
        if len(matches) == 1:
            return matches[0]
    raise TableError(
        f"{file_name}: cannot tell which column holds the molecules, name it with --columns; "
        f"the columns are {', '.join(columns)}"
    )
