"""The table of measured properties of single molecules, and readers of values and captions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from moltc_vllm.chem import canonical_key
from moltc_vllm.data.files import read_rows

MAX_CAPTION_WORDS = 30
"""Longest caption, as the authors of the published data advise."""

_MIN_CAPTION_WORDS = 5
_SENTENCE_END = re.compile(r"(?<=[a-z0-9)\]]\.) +(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class MeasuredProperty:
    """A measured property of single molecules.

    Attributes:
        name: Key in the instructions.
        file: File name in the data folder.
        column: Column of the values in the file.
        texts: Sentences about the value: either one with a placeholder for a number, or two for the
            values 0 and 1.
        decimals: Number of digits after the decimal point.
        bounds: Range of plausible values.
        tolerance: Largest difference between measurements of one molecule. A molecule whose
            measurements differ by more has no value.
        reveals: Family of data sets whose answer the property is, and the second molecule of the
            pair. For example, the solubility in water is the answer for the pair with water.
    """

    name: str
    file: str
    column: str
    texts: tuple[str, ...]
    decimals: int
    bounds: tuple[float, float]
    tolerance: float = 0.0
    reveals: tuple[str, str] | None = None

    def text(self, value: float) -> str:
        """Write the sentence about a value."""
        if len(self.texts) > 1:
            return self.texts[int(value)]
        # Adding 0.0 turns -0.0 into 0.0.
        return self.texts[0].format(f"{round(value, self.decimals) + 0.0:.{self.decimals}f}")


MOLECULE_PROPERTIES = (
    MeasuredProperty(
        "log_s",
        "prop_esol.csv.gz",
        "log_s_mol_per_l",
        ("The measured log solubility in water is {}.",),
        2,
        (-15, 5),
        tolerance=0.3,
        reveals=("solubility", "O"),
    ),
    MeasuredProperty(
        "log_d",
        "prop_lipophilicity.csv.gz",
        "log_d_ph7_4",
        ("The measured logD at pH 7.4 is {}.",),
        2,
        (-10, 12),
        tolerance=0.3,
    ),
    MeasuredProperty(
        "bbb_permeable",
        "prop_bbbp.csv.gz",
        "bbb_permeable",
        ("It does not pass the blood-brain barrier.", "It passes the blood-brain barrier."),
        0,
        (0, 1),
    ),
    MeasuredProperty(
        "fda_approved",
        "prop_clintox.csv.gz",
        "fda_approved",
        ("It is not approved by the FDA.", "It is approved by the FDA."),
        0,
        (0, 1),
    ),
    MeasuredProperty(
        "clinical_toxicity",
        "prop_clintox.csv.gz",
        "clinical_trial_toxicity",
        ("It was not toxic in clinical trials.", "It was toxic in clinical trials."),
        0,
        (0, 1),
    ),
)

CAPTION, CAPTION_FILE = "caption", "captions.csv.gz"


Value = TypeVar("Value", float, str)


@dataclass(frozen=True)
class PropertyValues(Generic[Value]):
    """Values of one property, read from a file.

    Attributes:
        values: One value per molecule, by canonical key.
        vague: Number of molecules without a value because their measurements contradict one
            another or are not plausible, or their caption is too short or too long.
        unreadable: Number of rows whose molecule or value cannot be parsed.
    """

    values: dict[str, Value]
    vague: int
    unreadable: int


def read_property_values(measured: MeasuredProperty, folder: Path) -> PropertyValues[float]:
    """Read the values of a measured property.

    The value of a molecule with several measurements is their mean, unless they contradict one
    another.

    Args:
        measured: Property to read.
        folder: Folder of the data files.

    Raises:
        DataError: If the file cannot be read, or lacks a column.
    """

    def mean(values: list[float]) -> float | None:
        low, high = min(values), max(values)
        is_plausible = measured.bounds[0] <= low and high <= measured.bounds[1]
        if not is_plausible or high - low > measured.tolerance:
            return None
        return math.fsum(values) / len(values)

    return _read(folder / measured.file, measured.column, float, mean)


def read_captions(folder: Path) -> PropertyValues[str]:
    """Read the first sentences of each molecule's description.

    A molecule has no caption if the first sentence is too long to be learned as an answer, or if
    the description has only a few words.

    Args:
        folder: Folder of the data files.

    Raises:
        DataError: If the file cannot be read, or lacks a column.
    """
    return _read(folder / CAPTION_FILE, CAPTION, str, lambda texts: shorten_caption(texts[0]))


def shorten_caption(caption: str) -> str | None:
    """Keep the first sentences, with at most `MAX_CAPTION_WORDS` words together.

    Args:
        caption: Description of a molecule.

    Returns:
        The sentences, or ``None`` if fewer than five words remain.
    """
    kept: list[str] = []
    for sentence in _SENTENCE_END.split(" ".join(caption.split())):
        words = sentence.split()
        if len(kept) + len(words) > MAX_CAPTION_WORDS:
            break
        kept += words
    return " ".join(kept) if len(kept) >= _MIN_CAPTION_WORDS else None


def _read(
    path: Path,
    column: str,
    parse: Callable[[str], Value],
    combine: Callable[[list[Value]], Value | None],
) -> PropertyValues[Value]:
    """Read a column by molecule.

    Args:
        path: File with a column ``smiles``.
        column: Column of the values.
        parse: Function that parses a cell.
        combine: Function that combines all values of a molecule, to ``None`` if they are vague.
    """
    values_by_key: dict[str, list[Value]] = {}
    unreadable = 0
    for smiles, cell in _read_cells(path, column):
        try:
            value = parse(cell)
            if value == value:  # pandas writes a missing number as NaN
                values_by_key.setdefault(canonical_key(smiles), []).append(value)
        except ValueError:  # also a `MoleculeError`
            unreadable += 1
    combined = {key: combine(values) for key, values in values_by_key.items()}
    kept = {key: value for key, value in combined.items() if value is not None}
    return PropertyValues(kept, len(combined) - len(kept), unreadable)


def _read_cells(path: Path, column: str) -> Iterator[tuple[str, str]]:
    for smiles, cell in read_rows(path, ("smiles", column)):
        if cell not in (None, ""):
            yield smiles or "", str(cell)
