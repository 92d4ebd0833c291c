"""Which pairs are held back for choosing or testing, and which row holds each back.

Read from the files again and compared by canonical molecule, so that it can judge what
`moltc_vllm.data.splits` keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from rdkit import Chem

from moltc_vllm.chem import MoleculeError, canonical_key, parse_smiles
from moltc_vllm.chem.rdkit_log import QuietLog
from moltc_vllm.data.rows import read_split_rows
from moltc_vllm.data.sources import SOURCES
from moltc_vllm.data.splits import RANK, unordered
from moltc_vllm.tasks import get_task

_KEPT = 1 << 17

KeyOf = Callable[[str], str]
"""Says which SMILES are the same molecule."""


class Place(NamedTuple):
    """A row of a data set."""

    source: str
    row: int
    split: str

    def __str__(self) -> str:
        return f"{self.source} row {self.row} ({self.split})"


@lru_cache(maxsize=_KEPT)
def molecule_key(smiles: str) -> str:
    """The canonical key; a text that is no molecule is only the same as itself."""
    try:
        return canonical_key(smiles)
    except MoleculeError:
        return smiles


@lru_cache(maxsize=_KEPT)
def flat_key(smiles: str) -> str:
    """The molecule without stereochemistry and isotopes; a text that is none stays as it is.

    TWOSIDES has no stereochemistry at all, so that the same drug has other SMILES elsewhere.
    """
    try:
        molecule = parse_smiles(smiles)
    except MoleculeError:
        return smiles
    with QuietLog():
        flat = Chem.MolToSmiles(molecule, isomericSmiles=False)
        # Once more: what was [2H] is an explicit hydrogen in the text, an implicit one after it.
        again = Chem.MolFromSmiles(flat)
        return Chem.MolToSmiles(again) if again is not None else flat


class HeldBack:
    """Pairs that are held back for choosing or testing, by the family of their data set.

    Args:
        key: Which SMILES are the same molecule.
    """

    def __init__(self, key: KeyOf = molecule_key) -> None:
        self._key = key
        self._places: dict[tuple[str, tuple[str, ...]], Place] = {}

    def add(self, family: str, molecules: Sequence[str], place: Place) -> None:
        """Hold a pair back, unless it is in a train part; the highest rank counts."""
        if RANK[place.split]:
            pair = family, unordered(map(self._key, molecules))
            known = self._places.setdefault(pair, place)
            if RANK[known.split] < RANK[place.split]:
                self._places[pair] = place

    def place(self, family: str, molecules: Sequence[str]) -> Place | None:
        """The row of highest rank that holds a pair back, in either order."""
        return self._places.get((family, unordered(map(self._key, molecules))))

    def __len__(self) -> int:
        return len(self._places)


def read_held_back(families: Iterable[str], folder: Path, key: KeyOf = molecule_key) -> HeldBack:
    """The pairs that some families' data sets hold back.

    Args:
        families: Of `Source.family`.
        folder: Of the data files.
        key: Which SMILES are the same molecule.

    Raises:
        DataError: If a file cannot be read.
    """
    held, wanted = HeldBack(key), set(families)
    for source in SOURCES.values():
        if source.family in wanted:
            for split, row in read_split_rows(folder / source.file, get_task(source.task)):
                held.add(source.family, row.molecules, Place(source.name, row.number, split))
    return held
