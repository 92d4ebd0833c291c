"""What is known of single molecules: each property apart, so that one can be missing.

Step 3 of the paper's instructions: a property that is missing, vague or not plausible is left out,
and the other ones of the molecule are told all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from moltc_vllm.chem import canonical_key
from moltc_vllm.data.descriptors import DESCRIPTORS, Descriptor, describe
from moltc_vllm.data.holdout import Holdout
from moltc_vllm.data.molecule_properties import (
    CAPTION,
    MOLECULE_PROPERTIES,
    Known,
    Measured,
    read_captions,
    read_measured,
)


class Property(NamedTuple):
    """One property of one molecule.

    ``value`` is in ``unit``; a caption has none. ``text`` is a whole sentence that stands alone.
    """

    name: str
    value: float | None
    unit: str
    text: str


PROPERTY_NAMES = (
    CAPTION,
    *(one.name for one in MOLECULE_PROPERTIES),
    *(one.name for one in DESCRIPTORS),
)
"""All properties, in the order in which they are told: what a graph does not tell comes first."""


class PropertyBook:
    """All that is known of every molecule, whatever data set it comes from.

    Args:
        folder: Of the data files.
        held_back: Answers about pairs that must not be told; see `Measured.tells`. Such a value is
            left out wherever its pair is held back for choosing or testing.

    Raises:
        DataError: If a file cannot be read.
    """

    def __init__(self, folder: Path, held_back: Holdout) -> None:
        self._captions = read_captions(folder)
        self._measured = {one.name: read_measured(one, folder) for one in MOLECULE_PROPERTIES}
        self.withheld = {
            one.name: _withhold(one, self._measured[one.name], held_back)
            for one in MOLECULE_PROPERTIES
        }

    def properties(self, smiles: str, without: Collection[str] = ()) -> list[Property]:
        """Everything that is known of a molecule, in the order of `PROPERTY_NAMES`.

        Args:
            smiles: The molecule.
            without: Families of data sets whose answers are left out.

        Raises:
            MoleculeError: If it cannot be read.
        """
        return list(self._properties(canonical_key(smiles), without))

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """How many molecules have each property of a file, and how many were left out, and why."""
        read: dict[str, Known[str] | Known[float]] = {CAPTION: self._captions, **self._measured}
        return {
            name: {
                "molecules": len(known.values),
                "vague": known.vague,
                "unreadable": known.unreadable,
                "withheld": self.withheld.get(name, 0),
            }
            for name, known in read.items()
        }

    def measured(self, name: str) -> Mapping[str, float]:
        """The values of a measured property that may be told, by canonical key."""
        return self._measured[name].values

    def _properties(self, key: str, without: Collection[str]) -> Iterator[Property]:
        if key in self._captions.values:
            yield Property(CAPTION, None, "", self._captions.values[key])
        for one in MOLECULE_PROPERTIES:
            value = self._measured[one.name].values.get(key)
            if value is not None and not (one.tells and one.tells[0] in without):
                yield Property(one.name, value, "", one.text(value))
        yield from calculated_properties(key)


def calculated_properties(smiles: str) -> list[Property]:
    """What RDKit calculates of a molecule, where it is plausible.

    Raises:
        MoleculeError: If it cannot be read.
    """
    return [
        _calculated(descriptor, value)
        for descriptor, value in zip(DESCRIPTORS, describe(smiles), strict=True)
        if descriptor.bounds[0] <= value <= descriptor.bounds[1]
    ]


def statement(names: Sequence[str], properties: Sequence[Sequence[Property]]) -> str:
    """The upper level of the chain of thought: molecule by molecule, one sentence per property.

    Args:
        names: What each molecule is called, e.g. its role.
        properties: Of each molecule; one without any is not spoken of.
    """
    told = zip(names, properties, strict=True)
    return " ".join(
        f"{name.capitalize()}: {' '.join(one.text for one in known)}"
        for name, known in told
        if known
    )


def _calculated(one: Descriptor, calculated: float) -> Property:
    value = round(calculated, one.decimals) + 0.0  # + 0.0: never "-0.00"
    unit = f" {one.unit}" if one.unit else ""
    text = f"The {one.phrase} is {value:.{one.decimals}f}{unit}."
    return Property(one.name, value, one.unit, text)


def _withhold(one: Measured, known: Known[float], held_back: Holdout) -> int:
    """Take out the values that answer a pair which is held back; how many there were."""
    if one.tells is None:
        return 0
    family, partner = one.tells
    told = [key for key in known.values if held_back.place(family, (key, partner))]
    for key in told:
        del known.values[key]
    return len(told)
