"""Leak checks: does a record tell what another one holds back?

Nothing here trusts how the records were made. Pairs are compared by canonical molecule, in either
order, over all data sets of the families that a record's data set reveals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from moltc_vllm.data.holdout import Holdout, Place, read_holdout
from moltc_vllm.data.keys import flat_key, molecule_key
from moltc_vllm.data.molecule_properties import MOLECULE_PROPERTIES
from moltc_vllm.data.properties import PropertyBook
from moltc_vllm.data.splits import RANK, read_parts


@dataclass(slots=True)
class Check:
    """What one check found.

    Attributes:
        name: What has to be so.
        checked: How many things were looked at.
        found: Those that are not so, one line each.
        note: Whether it is only told; a check that is no note and found something has failed.
    """

    name: str
    checked: int = 0
    found: list[str] = field(default_factory=list)
    note: bool = False

    @property
    def failed(self) -> bool:
        """Whether something is wrong."""
        return bool(self.found) and not self.note


class Told(NamedTuple):
    """A record's pair, and the families of data sets whose answers it tells."""

    place: Place
    molecules: tuple[str, ...]
    reveals: tuple[str, ...]


def check_sources(names: Iterable[str], folder: Path) -> Iterator[Check]:
    """Check what is trained, chosen and tested on, as `read_parts` gives it.

    Args:
        names: Keys of `DATASETS`.
        folder: Of the data files.

    Raises:
        DataError: If a name is unknown, or a file cannot be read.
    """
    told = [
        Told(Place(name, row.number, split), row.molecules, parts.source.reveals)
        for name, parts in read_parts(names, folder).items()
        for split, rows in parts.rows.items()
        for row in rows
    ]
    yield from check_pairs(told, folder)
    yield _check_book(folder)


def check_pairs(told: Sequence[Told], folder: Path) -> Iterator[Check]:
    """Check pairs against everything that the data sets hold back.

    Raises:
        DataError: If a file cannot be read.
    """
    families = {family for one in told for family in one.reveals}
    held = read_holdout(families, folder, molecule_key)
    yield compare("no pair tells what another one holds back", told, held)
    flat = read_holdout(families, folder, flat_key)
    yield compare("the same without stereochemistry, across data sets", told, flat, across=True)
    # Within one, isomers are rows with values of their own: only worth knowing.
    blind = compare("the same without stereochemistry", told, flat)
    yield Check(blind.name, blind.checked, blind.found, note=True)


def compare(name: str, told: Iterable[Told], held: Holdout, *, across: bool = False) -> Check:
    """Find the pairs that a data set they tell about has in a later split.

    Args:
        name: Of the check.
        told: The pairs.
        held: What is held back.
        across: Whether a pair's own data set does not count.
    """
    check = Check(name)
    for one in told:
        check.checked += 1
        for family in one.reveals:
            own = one.place.source if across else None
            place = held.place(family, one.molecules, but_of=own)
            if place is not None and RANK[place.split] > RANK[one.place.split]:
                check.found.append(f"{one.place} tells {place}: {', '.join(one.molecules)}")
                break
    return check


def _check_book(folder: Path) -> Check:
    """Check that no property of a molecule is the answer about a pair that is held back."""
    check = Check("no property tells what a pair holds back")
    families = {one.tells[0] for one in MOLECULE_PROPERTIES if one.tells}
    held = read_holdout(families, folder, flat_key)
    book = PropertyBook(folder, held)
    for one in MOLECULE_PROPERTIES:
        if one.tells is None:
            continue
        family, partner = one.tells
        for key in book.measured(one.name):
            check.checked += 1
            place = held.place(family, (key, partner))
            if place is not None:
                check.found.append(f"{one.name} of {key} tells {place}")
    return check
