"""Rows by split, without the pairs whose answer another data set holds out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moltc_vllm.data.dataset import Row, read_split_rows
from moltc_vllm.data.dataset_registry import DATASETS, DatasetSpec, get_dataset_spec
from moltc_vllm.data.keys import flat_key, unordered
from moltc_vllm.tasks import get_task

TRAIN, VALID, TEST = "train", "valid", "test"
RANK = {TRAIN: 0, VALID: 1, TEST: 2}
"""Rank of each split. A pair may not be in a split of lower rank than one that holds it out."""

UnorderedPair = tuple[str, ...]
"""Keys of the molecules of a pair, sorted."""


@dataclass(frozen=True, slots=True)
class DatasetSplits:
    """The measured rows of a data set by split.

    Attributes:
        spec: Description of the data set.
        rows: Rows with a target, by split.
        held_out: Number of rows of each split that were removed because another row holds out their
            pair.
    """

    spec: DatasetSpec
    rows: dict[str, tuple[Row, ...]]
    held_out: dict[str, int]


def read_splits(names: Iterable[str], folder: Path) -> dict[str, DatasetSplits]:
    """Read data sets without the pairs that any data set in `DATASETS` holds out.

    A pair in the test split of a data set is removed from the train and valid splits of every data
    set that reveals its family (`DatasetSpec.reveals`), in either order; a pair in a valid split is
    removed from these train splits. For example, FreeSolv's test pairs are removed from both
    CombiSolv sets, and those of ZhangDDI from TWOSIDES, the origin of its positives.

    Across data sets, molecules are compared without stereochemistry, which some data sets omit.
    Within a data set, isomers have their own values, so molecules are compared as written.

    Args:
        names: Keys of `DATASETS`.
        folder: Folder of the data files.

    Raises:
        DataError: If a name is unknown, or a file cannot be read.
    """
    specs = [get_dataset_spec(name) for name in names]
    revealed = {family for spec in specs for family in spec.reveals}
    rows_by_name = {
        spec.name: read_by_split(spec, folder)
        for spec in DATASETS.values()
        if spec.family in revealed or spec in specs
    }
    own_ranks = {name: _rank_pairs(rows, unordered) for name, rows in rows_by_name.items()}
    flat_ranks = {
        name: _rank_pairs(rows, flat_pair)
        for name, rows in rows_by_name.items()
        if any(name != spec.name and DATASETS[name].family in spec.reveals for spec in specs)
    }

    def remove_held_out(spec: DatasetSpec) -> DatasetSplits:
        other_ranks = [
            ranks
            for name, ranks in flat_ranks.items()
            if name != spec.name and DATASETS[name].family in spec.reveals
        ]
        return _remove_held_out(spec, rows_by_name[spec.name], own_ranks[spec.name], other_ranks)

    return {spec.name: remove_held_out(spec) for spec in specs}


def read_by_split(spec: DatasetSpec, folder: Path) -> dict[str, list[Row]]:
    """Read all rows of a data set by split, including those that other data sets hold out.

    Args:
        spec: Description of the data set.
        folder: Folder of the data files.

    Raises:
        DataError: If the file cannot be read.
    """
    rows_by_split: dict[str, list[Row]] = {split: [] for split in RANK}
    for split, row in read_split_rows(folder / spec.file, get_task(spec.task)):
        rows_by_split[split].append(row)
    return rows_by_split


def flat_pair(molecules: Iterable[str]) -> UnorderedPair:
    """Return the key of a pair without order, stereochemistry and isotopes."""
    return unordered(map(flat_key, molecules))


def _rank_pairs(
    rows_by_split: dict[str, list[Row]], key: Callable[[Iterable[str]], UnorderedPair]
) -> dict[UnorderedPair, int]:
    """Return the highest rank of the valid and test splits that each pair is in."""
    ranks: dict[UnorderedPair, int] = {}
    for split, rows in rows_by_split.items():
        if RANK[split]:
            for row in rows:
                pair = key(row.molecules)
                ranks[pair] = max(ranks.get(pair, 0), RANK[split])
    return ranks


def _remove_held_out(
    spec: DatasetSpec,
    rows_by_split: dict[str, list[Row]],
    own_ranks: dict[UnorderedPair, int],
    other_ranks: Sequence[dict[UnorderedPair, int]],
) -> DatasetSplits:
    """Remove rows without a target, and rows whose pair is held out.

    Args:
        spec: Description of the data set.
        rows_by_split: All rows of the data set.
        own_ranks: Ranks of the pairs that the data set itself holds out, as written.
        other_ranks: Ranks of the pairs that each other data set holds out, as flat pairs.
    """

    def is_allowed(row: Row, rank: int) -> bool:
        if own_ranks.get(unordered(row.molecules), 0) > rank:
            return False
        if rank == RANK[TEST] or not other_ranks:
            return True
        pair = flat_pair(row.molecules)
        return all(ranks.get(pair, 0) <= rank for ranks in other_ranks)

    measured = {
        split: [row for row in rows if row.target is not None]
        for split, rows in rows_by_split.items()
    }
    kept = {
        split: tuple(row for row in rows if is_allowed(row, RANK[split]))
        for split, rows in measured.items()
    }
    held_out = {split: len(measured[split]) - len(kept[split]) for split in rows_by_split}
    return DatasetSplits(spec, kept, held_out)
