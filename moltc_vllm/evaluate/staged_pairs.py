"""Measured pairs of the data sets that a checkpoint was not trained on, by part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moltc_vllm.data.dataset import Row
from moltc_vllm.data.dataset_registry import COMPUTED_DATASETS, DATASETS
from moltc_vllm.data.keys import unordered
from moltc_vllm.data.splits import TRAIN, VALID, read_splits
from moltc_vllm.data.unseen import BOTH_UNSEEN, KNOWN, ONE_UNSEEN, SplitBy, read_unseen


@dataclass(frozen=True, slots=True)
class UnseenSettings:
    """Molecules that a checkpoint was not trained on, see `moltc_vllm.data.unseen.read_unseen`.

    Attributes:
        fraction: Approximate fraction of the molecules.
        seed: Seed that decides which molecules.
        by: ``molecule`` or ``scaffold``.
    """

    fraction: float
    seed: int = 0
    by: SplitBy = "molecule"


@dataclass(frozen=True)
class StagedPairs:
    """Rows of one data set.

    Attributes:
        train: Rows that the checkpoint may have been trained on.
        parts: Other rows by part: ``valid``, ``one_unseen`` and ``both_unseen``.
    """

    train: Sequence[Row]
    parts: Mapping[str, Sequence[Row]]


def read_staged_pairs(
    folder: Path,
    names: Iterable[str],
    unseen: UnseenSettings | None = None,
    limit: int | None = None,
) -> dict[str, StagedPairs]:
    """Read the pairs of data sets, divided as for a checkpoint.

    Args:
        folder: Folder of the data files.
        names: Names of the data sets.
        unseen: Molecules that the checkpoint was not trained on; ``None`` if there are none.
        limit: Largest number of rows of a part, sampled at random; default: all.

    Raises:
        DataError: If a name is unknown or a file cannot be read.
    """
    result = {}
    if unseen is None:
        for name, dataset in read_splits(names, folder).items():
            parts = {VALID: _sample(dataset.rows[VALID], limit)}
            result[name] = StagedPairs(dataset.rows[TRAIN], parts)
        return result
    divided, datasets = read_unseen(folder, unseen.seed, unseen.fraction, unseen.by)
    for name in names:
        rows = {
            VALID: divided.drop_excluded(datasets[name].rows[VALID]),
            ONE_UNSEEN: divided.rows[name][ONE_UNSEEN],
            BOTH_UNSEEN: divided.rows[name][BOTH_UNSEEN],
        }
        parts = {part: _sample(part_rows, limit) for part, part_rows in rows.items()}
        result[name] = StagedPairs(divided.rows[name][KNOWN], parts)
    return result


def trained_datasets(card: Mapping[str, Any]) -> tuple[list[str], UnseenSettings | None]:
    """Return the training data sets and the unseen molecules of a checkpoint's card.

    Args:
        card: Content of ``card.json``.

    Returns:
        Names of the data sets of measured pairs, and the unseen molecules.
    """
    stages = card.get("stages", [])
    names: set[str] = set()
    unseen = None
    for stage in stages:
        names |= (stage.get("mixture") or stage.get("parts") or {}).keys()
        if stage.get("unseen"):
            settings = stage["unseen"]
            unseen = UnseenSettings(
                settings["fraction"], settings.get("seed", 0), settings.get("by", "molecule")
            )
    return sorted(names & DATASETS.keys() - COMPUTED_DATASETS), unseen


def fold_of(row: Row, unknown: Iterable[str]) -> int:
    """Return the half of the rows, 0 or 1, that a row belongs to in a cross-validation.

    All rows of an unknown molecule are in the same half, because their errors are alike.

    Args:
        row: Row to assign.
        unknown: Keys of its molecules that are not known.
    """
    text = min(unknown, default="\n".join(unordered(row.molecules)))
    return hashlib.blake2b(text.encode(), digest_size=1).digest()[0] % 2


def _sample(rows: Sequence[Row], limit: int | None) -> Sequence[Row]:
    if limit is None or len(rows) <= limit:
        return rows
    chosen = np.random.default_rng(0).choice(len(rows), limit, replace=False)
    return [rows[index] for index in sorted(chosen.tolist())]
