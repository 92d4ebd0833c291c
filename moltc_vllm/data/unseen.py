"""Splits by molecule and by scaffold, which measure accuracy on molecules unseen in training.

They divide the train splits only; the published valid and test splits are unchanged. Whether a
molecule is excluded from training depends only on the seed and the molecule, so it is excluded in
every data set, and a larger fraction excludes a superset of the molecules.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

from moltc_vllm.chem import MoleculeError, parse_smiles
from moltc_vllm.chem.rdkit_log import QuietLog
from moltc_vllm.data.dataset import Row
from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.data.keys import flat_key
from moltc_vllm.data.splits import TRAIN, DatasetSplits, read_splits

SplitBy = Literal["molecule", "scaffold"]

KNOWN, ONE_UNSEEN, BOTH_UNSEEN = "train", "one_unseen", "both_unseen"
"""Parts of the divided rows: rows to train on, and rows with one or two unseen molecules."""

COMMON = 0.05
"""Fraction of a data set's rows above which a molecule is never excluded. If water were excluded,
few rows would remain for training, and a test on water says little about new solvents."""

_CACHE_SIZE = 1 << 17


@lru_cache(maxsize=_CACHE_SIZE)
def scaffold_key(smiles: str) -> str | None:
    """Return the Bemis-Murcko scaffold without stereochemistry.

    Args:
        smiles: SMILES of the molecule.

    Returns:
        SMILES of the scaffold; ``None`` for a molecule without rings, which has no scaffold.
    """
    try:
        molecule = parse_smiles(smiles)
    except MoleculeError:
        return None
    with QuietLog(), suppress(ValueError, RuntimeError):  # RDKit cannot reduce every molecule
        scaffold = MurckoScaffold.GetScaffoldForMol(molecule)
        return Chem.MolToSmiles(scaffold, isomericSmiles=False) or None
    return None


@dataclass(frozen=True)
class UnseenSplits:
    """Train rows of several data sets, divided by the number of unseen molecules.

    Attributes:
        by: Whether molecules are compared as a whole or by scaffold.
        excluded: Keys that no train row may have: the sampled ones, and those that occur only in
            pairs with a sampled one.
        rows: Rows of each data set by ``train``, ``one_unseen`` and ``both_unseen``.
    """

    by: SplitBy
    excluded: frozenset[str]
    rows: dict[str, dict[str, list[Row]]]

    def drop_excluded(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows without excluded molecules, which may be used for training."""
        return [row for row in rows if not any(map(self.is_excluded, row.molecules))]

    def is_excluded(self, smiles: str) -> bool:
        """Return whether a molecule must not be used for training."""
        return _key(self.by, smiles) in self.excluded


def unseen_split(
    rows: Sequence[Row],
    seed: int = 0,
    fraction: float = 0.1,
    *,
    by: SplitBy = "molecule",
    roles: Sequence[int] | None = None,
) -> dict[str, list[Row]]:
    """Divide the train rows of one data set; see `unseen_splits`.

    Args:
        rows: Rows of the train split.
        seed: Seed that decides which molecules are excluded.
        fraction: Approximate fraction of the molecules to exclude.
        by: ``molecule`` (without stereochemistry) or ``scaffold`` (Bemis-Murcko).
        roles: Indices of the roles whose molecules may be excluded, e.g. ``(1,)`` for unseen
            solvents with known solutes; default: all.

    Returns:
        Rows by ``train``, ``one_unseen`` and ``both_unseen``, in their order.

    Raises:
        ValueError: If the fraction is not between 0 and 1.
    """
    datasets = {"": rows}
    return unseen_splits(datasets, seed, fraction, by=by, roles=roles).rows[""]


def unseen_splits(
    datasets: Mapping[str, Sequence[Row]],
    seed: int = 0,
    fraction: float = 0.1,
    *,
    by: SplitBy = "molecule",
    roles: Sequence[int] | None = None,
) -> UnseenSplits:
    """Divide the train rows of several data sets that are trained on together.

    A row with an excluded molecule is not trained on. A molecule is unseen if no remaining train
    row of any data set contains it, which is also true if all its partners are excluded.

    Args:
        datasets: Train rows by data set.
        seed: Seed that decides which molecules are excluded.
        fraction: Approximate fraction of the molecules to exclude.
        by: ``molecule`` or ``scaffold``, as for `unseen_split`.
        roles: Indices of the roles whose molecules may be excluded; default: all.

    Raises:
        ValueError: If the fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction {fraction} of molecules is not between 0 and 1")
    excluded = _sample_excluded(datasets.values(), seed, fraction, by, roles)
    is_trained: dict[str, list[bool]] = {}
    train_keys: set[str | None] = {None}  # a molecule without a key cannot be unseen
    for name, rows in datasets.items():
        is_trained[name] = [excluded.isdisjoint(_keys(by, row)) for row in rows]
        for row, trained in zip(rows, is_trained[name], strict=True):
            if trained:
                train_keys.update(_keys(by, row))
    divided = {}
    unseen: set[str | None] = set()
    for name, rows in datasets.items():
        parts: dict[str, list[Row]] = {KNOWN: [], ONE_UNSEEN: [], BOTH_UNSEEN: []}
        for row, trained in zip(rows, is_trained[name], strict=True):
            unseen_keys = [key for key in _keys(by, row) if key not in train_keys]
            label = KNOWN if trained else ONE_UNSEEN if len(unseen_keys) < 2 else BOTH_UNSEEN
            parts[label].append(row)
            unseen.update(unseen_keys)
        divided[name] = parts
    return UnseenSplits(by, excluded | {key for key in unseen if key}, divided)


@lru_cache(maxsize=2)
def read_unseen(
    folder: Path, seed: int, fraction: float, by: SplitBy = "molecule"
) -> tuple[UnseenSplits, dict[str, DatasetSplits]]:
    """Divide the train splits of all data sets, for a model trained on all of them.

    Args:
        folder: Folder of the data files.
        seed: Seed that decides which molecules are excluded.
        fraction: Approximate fraction of the molecules to exclude.
        by: ``molecule`` or ``scaffold``, as for `unseen_split`.

    Returns:
        The divided train rows, and the data sets as `read_splits` returns them.

    Raises:
        DataError: If a file cannot be read.
        ValueError: If the fraction is not between 0 and 1.
    """
    splits = read_splits(DATASETS, folder)
    train_rows = {name: dataset.rows[TRAIN] for name, dataset in splits.items()}
    return unseen_splits(train_rows, seed, fraction, by=by), splits


def count_unseen(by: SplitBy, molecules: Iterable[str], seen: frozenset[str | None]) -> int:
    """Count the molecules that are not among the seen ones.

    Args:
        by: ``molecule`` or ``scaffold``.
        molecules: SMILES to count.
        seen: Keys of the seen molecules, from `collect_keys`.
    """
    return sum(_key(by, smiles) not in seen for smiles in molecules)


def collect_keys(by: SplitBy, molecules: Iterable[str]) -> frozenset[str | None]:
    """Return the keys of molecules, and ``None``, the key of any molecule without a scaffold."""
    return frozenset({None, *(_key(by, smiles) for smiles in molecules)})


def _sample_excluded(
    datasets: Iterable[Sequence[Row]],
    seed: int,
    fraction: float,
    by: SplitBy,
    roles: Sequence[int] | None,
) -> frozenset[str]:
    excluded: set[str] = set()
    common: set[str] = set()
    for rows in datasets:
        counts: Counter[str | None] = Counter(key for row in rows for key in set(_keys(by, row)))
        common.update(key for key, count in counts.items() if key and count > COMMON * len(rows))
        candidates = {
            _key(by, smiles)
            for row in rows
            for role, smiles in enumerate(row.molecules)
            if roles is None or role in roles
        }
        excluded.update(key for key in candidates if key and _uniform_hash(key, seed) < fraction)
    return frozenset(excluded - common)


def _uniform_hash(key: str, seed: int) -> float:
    """Return a number from 0 to 1 that depends only on the molecule and the seed."""
    digest = hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _keys(by: SplitBy, row: Row) -> list[str | None]:
    return [_key(by, smiles) for smiles in row.molecules]


def _key(by: SplitBy, smiles: str) -> str | None:
    return flat_key(smiles) if by == "molecule" else scaffold_key(smiles)
