"""What may be trained on: no pair whose answer is held back anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moltc_vllm.data.dataset import Row, read_split_rows
from moltc_vllm.data.datasets import DATASETS, Source, get_source
from moltc_vllm.data.keys import flat_key, unordered
from moltc_vllm.tasks import get_task

TRAIN, VALID, TEST = "train", "valid", "test"
RANK = {TRAIN: 0, VALID: 1, TEST: 2}
"""A pair may not be in a split of a lower rank than one that holds it back."""

Pair = tuple[str, ...]
"""Molecules without their order."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A data set's measured rows by split.

    Attributes:
        source: Which data set.
        rows: By split; only rows that have a target.
        held_back: How many rows of each split were left out, because another data set holds their
            pair back.
    """

    source: Source
    rows: dict[str, tuple[Row, ...]]
    held_back: dict[str, int]


def read_parts(names: Iterable[str], folder: Path) -> dict[str, Parts]:
    """Read data sets so that none tells what another one, read or not, holds back.

    A pair in the test part of a data set is in no train or valid part of one that reveals its
    family (`Source.reveals`), in either order; a pair in a valid part is in no such train part.
    So FreeSolv's test pairs are absent from both CombiSolv sets, and those of ZhangDDI from
    TWOSIDES, whence its positives come.

    Across data sets molecules are compared without stereochemistry, which some leave out; within
    one, where isomers have values of their own, as they are written.

    Args:
        names: Keys of `DATASETS`.
        folder: Where the files are.

    Raises:
        DataError: If a name is unknown, or a file cannot be read.
    """
    wanted = [get_source(name) for name in names]
    families = {family for source in wanted for family in source.reveals}
    read = {
        source.name: read_by_split(source, folder)
        for source in DATASETS.values()
        if source.family in families or source in wanted
    }
    own = {name: _ranks(rows, unordered) for name, rows in read.items()}
    flat = {
        name: _ranks(rows, flat_pair)
        for name, rows in read.items()
        if any(name != one.name and DATASETS[name].family in one.reveals for one in wanted)
    }

    def kept(source: Source) -> Parts:
        others = [
            ranks
            for name, ranks in flat.items()
            if name != source.name and DATASETS[name].family in source.reveals
        ]
        return _kept(source, read[source.name], own[source.name], others)

    return {source.name: kept(source) for source in wanted}


def flat_pair(molecules: Iterable[str]) -> Pair:
    """A pair without its order and stereochemistry."""
    return unordered(map(flat_key, molecules))


def _ranks(rows: dict[str, list[Row]], pair: Callable[[Iterable[str]], Pair]) -> dict[Pair, int]:
    """The highest rank of the splits that each pair is in, of those that hold back."""
    ranks: dict[Pair, int] = {}
    for split, part in rows.items():
        if RANK[split]:
            for row in part:
                key = pair(row.molecules)
                ranks[key] = max(ranks.get(key, 0), RANK[split])
    return ranks


def _kept(
    source: Source,
    rows: dict[str, list[Row]],
    own: dict[Pair, int],
    others: Sequence[dict[Pair, int]],
) -> Parts:
    def may_stay(row: Row, rank: int) -> bool:
        if own.get(unordered(row.molecules), 0) > rank:
            return False
        if rank == RANK[TEST] or not others:
            return True
        pair = flat_pair(row.molecules)
        return all(ranks.get(pair, 0) <= rank for ranks in others)

    measured = {
        split: [row for row in part if row.target is not None] for split, part in rows.items()
    }
    kept = {
        split: tuple(row for row in part if may_stay(row, RANK[split]))
        for split, part in measured.items()
    }
    held_back = {split: len(measured[split]) - len(kept[split]) for split in rows}
    return Parts(source, kept, held_back)


def read_by_split(source: Source, folder: Path) -> dict[str, list[Row]]:
    """All rows of a data set as its file divides them, whatever other data sets hold back.

    Raises:
        DataError: If the file cannot be read.
    """
    parts: dict[str, list[Row]] = {split: [] for split in RANK}
    for split, row in read_split_rows(folder / source.file, get_task(source.task)):
        parts[split].append(row)
    return parts
