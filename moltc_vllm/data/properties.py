"""Properties of single molecules, each as a separate sentence.

This is step 3 of the paper's instructions: a property that is missing, vague or not plausible is
left out, and the other properties of the molecule are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from moltc_vllm.chem import canonical_key
from moltc_vllm.data.descriptors import DESCRIPTORS, Descriptor, compute_descriptors
from moltc_vllm.data.holdout import Holdout
from moltc_vllm.data.molecule_properties import (
    CAPTION,
    MOLECULE_PROPERTIES,
    MeasuredProperty,
    PropertyValues,
    read_captions,
    read_property_values,
)


class Property(NamedTuple):
    """One property of one molecule.

    Attributes:
        name: Key of the property.
        value: Value in ``unit``; ``None`` for a caption.
        unit: Unit of the value; may be empty.
        text: Complete sentence about the value.
    """

    name: str
    value: float | None
    unit: str
    text: str


PROPERTY_NAMES = (
    CAPTION,
    *(measured.name for measured in MOLECULE_PROPERTIES),
    *(descriptor.name for descriptor in DESCRIPTORS),
)
"""All properties in the order of their sentences; those that no graph contains come first."""


class PropertyTable:
    """All known properties of every molecule, from all data sets.

    Args:
        folder: Folder of the data files.
        holdout: Held-out pairs. A property that reveals the answer for one of them
            (`MeasuredProperty.reveals`) is left out.

    Attributes:
        withheld: Number of values of each measured property that were left out because they reveal
            a held-out answer.

    Raises:
        DataError: If a file cannot be read.
    """

    def __init__(self, folder: Path, holdout: Holdout) -> None:
        self._captions = read_captions(folder)
        self._measured = {
            measured.name: read_property_values(measured, folder)
            for measured in MOLECULE_PROPERTIES
        }
        self.withheld = {
            measured.name: _withhold(measured, self._measured[measured.name], holdout)
            for measured in MOLECULE_PROPERTIES
        }

    def properties(self, smiles: str, without: Collection[str] = ()) -> list[Property]:
        """Return all known properties of a molecule, in the order of `PROPERTY_NAMES`.

        Args:
            smiles: SMILES of the molecule.
            without: Families of data sets; properties that reveal their answers are left out.

        Raises:
            MoleculeError: If the SMILES cannot be parsed.
        """
        return list(self._properties(canonical_key(smiles), without))

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Count the molecules with each measured property or caption, and the values left out."""
        tables: dict[str, PropertyValues[str] | PropertyValues[float]] = {
            CAPTION: self._captions,
            **self._measured,
        }
        return {
            name: {
                "molecules": len(table.values),
                "vague": table.vague,
                "unreadable": table.unreadable,
                "withheld": self.withheld.get(name, 0),
            }
            for name, table in tables.items()
        }

    def measured(self, name: str) -> Mapping[str, float]:
        """Return the values of a measured property by canonical key, without the withheld ones."""
        return self._measured[name].values

    def _properties(self, key: str, without: Collection[str]) -> Iterator[Property]:
        if key in self._captions.values:
            yield Property(CAPTION, None, "", self._captions.values[key])
        for measured in MOLECULE_PROPERTIES:
            value = self._measured[measured.name].values.get(key)
            is_left_out = measured.reveals is not None and measured.reveals[0] in without
            if value is not None and not is_left_out:
                yield Property(measured.name, value, "", measured.text(value))
        yield from calculate_properties(key)


def calculate_properties(smiles: str) -> list[Property]:
    """Calculate the descriptors of a molecule and keep the plausible values.

    Args:
        smiles: SMILES of the molecule.

    Raises:
        MoleculeError: If the SMILES cannot be parsed.
    """
    return [
        _calculated_property(descriptor, value)
        for descriptor, value in zip(DESCRIPTORS, compute_descriptors(smiles), strict=True)
        if descriptor.bounds[0] <= value <= descriptor.bounds[1]
    ]


def format_properties(names: Sequence[str], properties: Sequence[Sequence[Property]]) -> str:
    """Write the upper level of the chain of thought: one sentence per molecule and property.

    Args:
        names: Name of each molecule, e.g. its role.
        properties: Properties of each molecule; a molecule without properties is left out.
    """
    return " ".join(
        f"{name.capitalize()}: {' '.join(item.text for item in molecule_properties)}"
        for name, molecule_properties in zip(names, properties, strict=True)
        if molecule_properties
    )


def _calculated_property(descriptor: Descriptor, calculated: float) -> Property:
    value = round(calculated, descriptor.decimals) + 0.0  # adding 0.0 turns -0.0 into 0.0
    unit = f" {descriptor.unit}" if descriptor.unit else ""
    text = f"The {descriptor.phrase} is {value:.{descriptor.decimals}f}{unit}."
    return Property(descriptor.name, value, descriptor.unit, text)


def _withhold(measured: MeasuredProperty, table: PropertyValues[float], holdout: Holdout) -> int:
    """Remove the values that reveal a held-out answer, and return their number."""
    if measured.reveals is None:
        return 0
    family, partner = measured.reveals
    revealing = [key for key in table.values if holdout.find(family, (key, partner))]
    for key in revealing:
        del table.values[key]
    return len(revealing)
