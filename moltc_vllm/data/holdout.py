"""Pairs that the data sets hold out for validation and test.

The pairs are read from the files again and compared by canonical molecule, so that this module can
check the work of `moltc_vllm.data.splits`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from moltc_vllm.data.dataset import read_split_rows
from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.data.keys import molecule_key, unordered
from moltc_vllm.data.splits import RANK, UnorderedPair
from moltc_vllm.tasks import get_task

KeyFunction = Callable[[str], str]
"""Function that returns equal keys for SMILES of the same molecule."""


class RowLocation(NamedTuple):
    """Location of a row in the data sets.

    Attributes:
        dataset: Name of the data set.
        row: Number of the row in the file, from 1.
        split: Split of the row.
    """

    dataset: str
    row: int
    split: str

    def __str__(self) -> str:
        return f"{self.dataset} row {self.row} ({self.split})"


class Holdout:
    """Pairs that are held out for validation or test, by the family of their data set.

    Args:
        key: Function that returns the key of a molecule.
    """

    def __init__(self, key: KeyFunction = molecule_key) -> None:
        self._key = key
        # Row of highest rank in each data set, by family and pair.
        self._locations: dict[tuple[str, UnorderedPair], dict[str, RowLocation]] = {}

    def add(self, family: str, molecules: Sequence[str], location: RowLocation) -> None:
        """Hold out the pair of a row, unless the row is in a train split.

        Args:
            family: Family of the data set.
            molecules: SMILES of the pair.
            location: Location of the row; of several rows of a data set, the one with the highest
                rank is kept.
        """
        if RANK[location.split]:
            pair = unordered(map(self._key, molecules))
            locations = self._locations.setdefault((family, pair), {})
            previous = locations.setdefault(location.dataset, location)
            if RANK[previous.split] < RANK[location.split]:
                locations[location.dataset] = location

    def find(
        self, family: str, molecules: Sequence[str], *, ignore_dataset: str | None = None
    ) -> RowLocation | None:
        """Return the row of highest rank that holds out a pair, in either order.

        Args:
            family: Family of the data sets to search.
            molecules: SMILES of the pair.
            ignore_dataset: Name of a data set whose rows do not count.
        """
        pair = unordered(map(self._key, molecules))
        locations = self._locations.get((family, pair), {})
        others = [location for dataset, location in locations.items() if dataset != ignore_dataset]
        return max(others, key=lambda location: RANK[location.split], default=None)

    def __len__(self) -> int:
        return len(self._locations)


def read_holdout(families: Iterable[str], folder: Path, key: KeyFunction = molecule_key) -> Holdout:
    """Read the pairs that the data sets of some families hold out.

    Args:
        families: Families of data sets (`DatasetSpec.family`).
        folder: Folder of the data files.
        key: Function that returns the key of a molecule.

    Raises:
        DataError: If a file cannot be read.
    """
    holdout, selected = Holdout(key), set(families)
    for spec in DATASETS.values():
        if spec.family in selected:
            for split, row in read_split_rows(folder / spec.file, get_task(spec.task)):
                location = RowLocation(spec.name, row.number, split)
                holdout.add(spec.family, row.molecules, location)
    return holdout
