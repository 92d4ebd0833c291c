"""Which pairs are held back for choosing or testing, and which row holds each back.

Read from the files again and compared by canonical molecule, so that it can judge what
`moltc_vllm.data.splits` keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from moltc_vllm.data.dataset import read_split_rows
from moltc_vllm.data.datasets import DATASETS
from moltc_vllm.data.keys import molecule_key, unordered
from moltc_vllm.data.splits import RANK, Pair
from moltc_vllm.tasks import get_task

KeyOf = Callable[[str], str]
"""Says which SMILES are the same molecule."""


class Place(NamedTuple):
    """A row of a data set."""

    source: str
    row: int
    split: str

    def __str__(self) -> str:
        return f"{self.source} row {self.row} ({self.split})"


class Holdout:
    """Pairs that are held back for choosing or testing, by the family of their data set.

    Args:
        key: Which SMILES are the same molecule.
    """

    def __init__(self, key: KeyOf = molecule_key) -> None:
        self._key = key
        # By family and pair, the row of highest rank of each data set.
        self._places: dict[tuple[str, Pair], dict[str, Place]] = {}

    def add(self, family: str, molecules: Sequence[str], place: Place) -> None:
        """Hold a pair back, unless it is in a train part; the highest rank counts."""
        if RANK[place.split]:
            places = self._places.setdefault((family, unordered(map(self._key, molecules))), {})
            known = places.setdefault(place.source, place)
            if RANK[known.split] < RANK[place.split]:
                places[place.source] = place

    def place(
        self, family: str, molecules: Sequence[str], *, but_of: str | None = None
    ) -> Place | None:
        """The row of highest rank that holds a pair back, in either order.

        Args:
            family: That the pair tells about.
            molecules: The pair.
            but_of: Name of a data set whose own rows do not count.
        """
        places = self._places.get((family, unordered(map(self._key, molecules))), {})
        others = [place for source, place in places.items() if source != but_of]
        return max(others, key=lambda place: RANK[place.split], default=None)

    def __len__(self) -> int:
        return len(self._places)


def read_holdout(families: Iterable[str], folder: Path, key: KeyOf = molecule_key) -> Holdout:
    """The pairs that some families' data sets hold back.

    Args:
        families: Of `Source.family`.
        folder: Of the data files.
        key: Which SMILES are the same molecule.

    Raises:
        DataError: If a file cannot be read.
    """
    held, wanted = Holdout(key), set(families)
    for source in DATASETS.values():
        if source.family in wanted:
            for split, row in read_split_rows(folder / source.file, get_task(source.task)):
                held.add(source.family, row.molecules, Place(source.name, row.number, split))
    return held
