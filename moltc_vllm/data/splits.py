"""What may be trained on: no pair whose answer is held back anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from moltc_vllm.data.rows import Row, read_split_rows
from moltc_vllm.data.sources import SOURCES, Source, get_source
from moltc_vllm.tasks import get_task

TRAIN, VALID, TEST = "train", "valid", "test"
RANK = {TRAIN: 0, VALID: 1, TEST: 2}
"""A pair may not be in a split of a lower rank than one that holds it back."""


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


def unordered(molecules: Iterable[str]) -> tuple[str, ...]:
    """A pair without its order."""
    return tuple(sorted(molecules))


def read_parts(names: Iterable[str], folder: Path) -> dict[str, Parts]:
    """Read data sets so that none tells what another one, read or not, holds back.

    A pair in the test part of a data set is in no train or valid part of one that reveals its
    family (`Source.reveals`), in either order; a pair in a valid part is in no such train part.
    So FreeSolv's test pairs are absent from both CombiSolv sets, and those of ZhangDDI from
    TWOSIDES, whence its positives come.

    Args:
        names: Keys of `SOURCES`.
        folder: Where the files are.

    Raises:
        DataError: If a name is unknown, or a file cannot be read.
    """
    wanted = [get_source(name) for name in names]
    families = {family for source in wanted for family in source.reveals}
    read = {
        source.name: _by_split(source, folder)
        for source in SOURCES.values()
        if source.family in families or source in wanted
    }
    rank: dict[tuple[str, tuple[str, ...]], int] = {}
    for name, rows in read.items():
        for split, part in rows.items():
            for row in part:
                key = SOURCES[name].family, unordered(row.molecules)
                rank[key] = max(rank.get(key, 0), RANK[split])
    return {source.name: _kept(source, read[source.name], rank) for source in wanted}


def _kept(
    source: Source,
    rows: dict[str, list[Row]],
    rank: dict[tuple[str, tuple[str, ...]], int],
) -> Parts:
    kept = {
        split: tuple(
            row
            for row in part
            if row.target is not None
            and all(
                rank.get((family, unordered(row.molecules)), 0) <= RANK[split]
                for family in source.reveals
            )
        )
        for split, part in rows.items()
    }
    measured = {split: sum(row.target is not None for row in part) for split, part in rows.items()}
    held_back = {split: measured[split] - len(kept[split]) for split in rows}
    return Parts(source, kept, held_back)


def _by_split(source: Source, folder: Path) -> dict[str, list[Row]]:
    parts: dict[str, list[Row]] = {split: [] for split in RANK}
    for split, row in read_split_rows(folder / source.file, get_task(source.task)):
        parts[split].append(row)
    return parts
