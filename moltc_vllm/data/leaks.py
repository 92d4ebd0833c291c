"""Leak checks: find records that reveal the answer of a pair that is held out.

The checks do not rely on how the records were made. They compare pairs by canonical molecule, in
either order, over all data sets of the families that a record's data set reveals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from moltc_vllm.data.holdout import Holdout, RowLocation, read_holdout
from moltc_vllm.data.keys import flat_key, molecule_key
from moltc_vllm.data.molecule_properties import MOLECULE_PROPERTIES
from moltc_vllm.data.properties import PropertyTable
from moltc_vllm.data.splits import RANK, read_splits


@dataclass(slots=True)
class CheckResult:
    """Result of one check.

    Attributes:
        name: Condition that must hold.
        checked: Number of items that were checked.
        findings: Items that violate the condition, one line each.
        is_note: Whether findings are only reported and do not make the check fail.
    """

    name: str
    checked: int = 0
    findings: list[str] = field(default_factory=list)
    is_note: bool = False

    @property
    def failed(self) -> bool:
        """Whether the condition is violated."""
        return bool(self.findings) and not self.is_note


class RecordedPair(NamedTuple):
    """A pair of a record, and the families of data sets whose answers the record reveals.

    Attributes:
        location: Row that the record was made from.
        molecules: SMILES of the pair.
        reveals: Families of data sets.
    """

    location: RowLocation
    molecules: tuple[str, ...]
    reveals: tuple[str, ...]


def check_datasets(names: Iterable[str], folder: Path) -> Iterator[CheckResult]:
    """Check the train, valid and test rows of data sets, as `read_splits` returns them.

    Args:
        names: Keys of `DATASETS`.
        folder: Folder of the data files.

    Raises:
        DataError: If a name is unknown, or a file cannot be read.
    """
    pairs = [
        RecordedPair(RowLocation(name, row.number, split), row.molecules, dataset.spec.reveals)
        for name, dataset in read_splits(names, folder).items()
        for split, rows in dataset.rows.items()
        for row in rows
    ]
    yield from check_pairs(pairs, folder)
    yield _check_properties(folder)


def check_pairs(pairs: Sequence[RecordedPair], folder: Path) -> Iterator[CheckResult]:
    """Check pairs against all pairs that the data sets hold out.

    Args:
        pairs: Pairs to check.
        folder: Folder of the data files.

    Raises:
        DataError: If a file cannot be read.
    """
    families = {family for pair in pairs for family in pair.reveals}
    name = "no pair reveals a held-out answer"
    yield find_leaks(name, pairs, read_holdout(families, folder, molecule_key))
    flat_name = f"{name}, compared without stereochemistry"
    flat_holdout = read_holdout(families, folder, flat_key)
    yield find_leaks(f"{flat_name} across data sets", pairs, flat_holdout, across=True)
    # Within a data set, isomers are rows with their own values, so these findings are not leaks.
    note = find_leaks(flat_name, pairs, flat_holdout)
    note.is_note = True
    yield note


def find_leaks(
    name: str, pairs: Iterable[RecordedPair], holdout: Holdout, *, across: bool = False
) -> CheckResult:
    """Find the pairs that a data set of a revealed family has in a split of higher rank.

    Args:
        name: Name of the check.
        pairs: Pairs to check.
        holdout: Held-out pairs.
        across: Whether to ignore the rows of a pair's own data set.
    """
    result = CheckResult(name)
    for pair in pairs:
        result.checked += 1
        for family in pair.reveals:
            ignored = pair.location.dataset if across else None
            held_out = holdout.find(family, pair.molecules, ignore_dataset=ignored)
            if held_out is not None and RANK[held_out.split] > RANK[pair.location.split]:
                molecules = ", ".join(pair.molecules)
                result.findings.append(f"{pair.location} reveals {held_out}: {molecules}")
                break
    return result


def _check_properties(folder: Path) -> CheckResult:
    """Check that no property of a molecule is the answer of a held-out pair."""
    result = CheckResult("no property reveals the answer of a held-out pair")
    families = {measured.reveals[0] for measured in MOLECULE_PROPERTIES if measured.reveals}
    holdout = read_holdout(families, folder, flat_key)
    table = PropertyTable(folder, holdout)
    for measured in MOLECULE_PROPERTIES:
        if measured.reveals is None:
            continue
        family, partner = measured.reveals
        for key in table.measured(measured.name):
            result.checked += 1
            held_out = holdout.find(family, (key, partner))
            if held_out is not None:
                result.findings.append(f"{measured.name} of {key} reveals {held_out}")
    return result
