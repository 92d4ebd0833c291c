"""Splits by molecule and by scaffold: what users meet is a molecule that the model never saw.

They are made of the train part only; the suggested valid and test parts keep their molecules to
themselves. Whether a molecule is set aside depends on the seed and the molecule alone, so that it
is set aside in every data set, and a larger fraction sets aside the same ones and more.
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
from moltc_vllm.data.datasets import DATASETS
from moltc_vllm.data.keys import flat_key
from moltc_vllm.data.splits import TRAIN, Parts, read_parts

SplitBy = Literal["molecule", "scaffold"]

KNOWN, ONE_UNSEEN, BOTH_UNSEEN = "train", "one_unseen", "both_unseen"

COMMON = 0.05
"""A molecule in more of a data set's rows than this is never set aside: without water, a set of
solutions has little left to learn from, and a test on water alone says nothing of new solvents."""

_KEPT = 1 << 17


@lru_cache(maxsize=_KEPT)
def scaffold_key(smiles: str) -> str | None:
    """The Bemis-Murcko scaffold without stereochemistry; ``None`` of a molecule without rings.

    Molecules without rings have nothing in common, so they are no group that could be unseen.
    """
    try:
        molecule = parse_smiles(smiles)
    except MoleculeError:
        return None
    with QuietLog(), suppress(ValueError, RuntimeError):  # RDKit's, of what it cannot cut down
        scaffold = MurckoScaffold.GetScaffoldForMol(molecule)
        return Chem.MolToSmiles(scaffold, isomericSmiles=False) or None
    return None


@dataclass(frozen=True)
class Unseen:
    """Rows by how many of their molecules no train row has.

    Attributes:
        by: What a molecule is known by.
        aside: The keys that no train row may have: those that were drawn, and those of molecules
            whose every partner was.
        rows: Of each data set, by ``train``, ``one_unseen`` and ``both_unseen``.
    """

    by: SplitBy
    aside: frozenset[str]
    rows: dict[str, dict[str, list[Row]]]

    def without_aside(self, rows: Iterable[Row]) -> list[Row]:
        """The rows that may be trained on, or chosen with."""
        return [row for row in rows if not any(map(self.is_aside, row.molecules))]

    def is_aside(self, smiles: str) -> bool:
        """Whether a molecule must not be trained on, if the unseen are to be unseen."""
        return _key(self.by, smiles) in self.aside


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
        rows: Of the train part.
        seed: Another one sets other molecules aside.
        fraction: Of the molecules to set aside, about.
        by: ``molecule``: without stereochemistry; ``scaffold``: Bemis-Murcko.
        roles: Places whose molecules may be set aside, e.g. ``(1,)`` for unseen solvents among
            known solutes; all by default.

    Returns:
        ``train``, ``one_unseen`` and ``both_unseen``: each row is in one of them, in order.

    Raises:
        ValueError: If the fraction is not between 0 and 1.
    """
    sets = {"": rows}
    return unseen_splits(sets, seed, fraction, by=by, roles=roles).rows[""]


def unseen_splits(
    sets: Mapping[str, Sequence[Row]],
    seed: int = 0,
    fraction: float = 0.1,
    *,
    by: SplitBy = "molecule",
    roles: Sequence[int] | None = None,
) -> Unseen:
    """Divide the train rows of several data sets that are trained on together.

    A row with a molecule that was set aside is not trained on. A molecule is unseen if no train
    row of any of the sets has it: also one whose every partner was set aside.

    Args:
        sets: Train rows by data set.
        seed: As in `unseen_split`, like the other ones.
        fraction: Of the molecules.
        by: Molecule or scaffold.
        roles: Places whose molecules may be set aside.

    Raises:
        ValueError: If the fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction {fraction} of molecules is not between 0 and 1")
    aside = _set_aside(sets.values(), seed, fraction, by, roles)
    trained: dict[str, list[bool]] = {}
    seen: set[str | None] = {None}  # what has no key cannot be unseen
    for name, rows in sets.items():
        trained[name] = [not aside.intersection(_keys(by, row)) for row in rows]
        for row, is_trained in zip(rows, trained[name], strict=True):
            if is_trained:
                seen.update(_keys(by, row))
    divided = {}
    new_keys: set[str | None] = set()
    for name, rows in sets.items():
        parts: dict[str, list[Row]] = {KNOWN: [], ONE_UNSEEN: [], BOTH_UNSEEN: []}
        for row, is_trained in zip(rows, trained[name], strict=True):
            new = [key for key in _keys(by, row) if key not in seen]
            label = KNOWN if is_trained else ONE_UNSEEN if len(new) < 2 else BOTH_UNSEEN
            parts[label].append(row)
            new_keys.update(new)
        divided[name] = parts
    return Unseen(by, aside | {key for key in new_keys if key}, divided)


@lru_cache(maxsize=1)
def read_unseen(folder: Path, seed: int, fraction: float) -> tuple[Unseen, dict[str, Parts]]:
    """Divide the train parts of all data sets at once, for a model that learns from all of them.

    Args:
        folder: Of the data files.
        seed: As in `unseen_split`.
        fraction: Of the molecules.

    Returns:
        The divided train rows, and the data sets as `read_parts` has them.

    Raises:
        DataError: If a file cannot be read.
        ValueError: If the fraction is not between 0 and 1.
    """
    parts = read_parts(DATASETS, folder)
    rows = {name: part.rows[TRAIN] for name, part in parts.items()}
    return unseen_splits(rows, seed, fraction), parts


def unseen_count(by: SplitBy, molecules: Iterable[str], seen: frozenset[str | None]) -> int:
    """How many of some molecules are not among those seen, which `keys_of` gives."""
    return sum(_key(by, smiles) not in seen for smiles in molecules)


def keys_of(by: SplitBy, molecules: Iterable[str]) -> frozenset[str | None]:
    """The keys of molecules, and ``None``, which stands for molecules that have none."""
    return frozenset({None, *(_key(by, smiles) for smiles in molecules)})


def _set_aside(
    sets: Iterable[Sequence[Row]],
    seed: int,
    fraction: float,
    by: SplitBy,
    roles: Sequence[int] | None,
) -> frozenset[str]:
    aside: set[str] = set()
    common: set[str] = set()
    for rows in sets:
        count: Counter[str | None] = Counter(key for row in rows for key in set(_keys(by, row)))
        common.update(key for key, n in count.items() if key and n > COMMON * len(rows))
        chosen = {
            _key(by, smiles)
            for row in rows
            for place, smiles in enumerate(row.molecules)
            if roles is None or place in roles
        }
        aside.update(key for key in chosen if key and _drawn(key, seed) < fraction)
    return frozenset(aside - common)


def _drawn(key: str, seed: int) -> float:
    """A number from 0 to 1 that only the molecule and the seed decide."""
    digest = hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _keys(by: SplitBy, row: Row) -> list[str | None]:
    return [_key(by, smiles) for smiles in row.molecules]


def _key(by: SplitBy, smiles: str) -> str | None:
    return flat_key(smiles) if by == "molecule" else scaffold_key(smiles)
