"""The table of single molecules' measured properties and captions, and how their files are read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from moltc_vllm.chem import canonical_key
from moltc_vllm.data.files import read_rows, require_columns

MAX_CAPTION_WORDS = 30
"""The published data's advice for the text about a molecule."""

_MIN_CAPTION_WORDS = 5
_SENTENCE_END = re.compile(r"(?<=[a-z0-9)\]]\.) +(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Measured:
    """One measured property of single molecules.

    Attributes:
        name: Key in the instructions.
        file: In the data folder.
        column: In the file.
        texts: Sentences about the values: one with a place for a number, or those of 0 and 1.
        decimals: Digits after the point of a number.
        bounds: Plausible values.
        tolerance: Two measurements of a molecule that differ by more are vague: it has none.
        tells: The family of data sets whose answers it is, and the second molecule of the pair; a
            water solubility is the answer about the pair of a molecule and water.
    """

    name: str
    file: str
    column: str
    texts: tuple[str, ...]
    decimals: int
    bounds: tuple[float, float]
    tolerance: float = 0.0
    tells: tuple[str, str] | None = None

    def text(self, value: float) -> str:
        """A sentence that says the value."""
        if len(self.texts) > 1:
            return self.texts[int(value)]
        return self.texts[0].format(f"{round(value, self.decimals) + 0.0:.{self.decimals}f}")


MOLECULE_PROPERTIES = (
    Measured(
        "log_s",
        "prop_esol.csv.gz",
        "log_s_mol_per_l",
        ("The measured log solubility in water is {}.",),
        2,
        (-15, 5),
        tolerance=0.3,
        tells=("solubility", "O"),
    ),
    Measured(
        "log_d",
        "prop_lipophilicity.csv.gz",
        "log_d_ph7_4",
        ("The measured logD at pH 7.4 is {}.",),
        2,
        (-10, 12),
        tolerance=0.3,
    ),
    Measured(
        "bbb_permeable",
        "prop_bbbp.csv.gz",
        "bbb_permeable",
        ("It does not pass the blood-brain barrier.", "It passes the blood-brain barrier."),
        0,
        (0, 1),
    ),
    Measured(
        "fda_approved",
        "prop_clintox.csv.gz",
        "fda_approved",
        ("It is not approved by the FDA.", "It is approved by the FDA."),
        0,
        (0, 1),
    ),
    Measured(
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
class Known(Generic[Value]):
    """What a file says, by canonical key.

    Attributes:
        values: One per molecule.
        vague: Molecules whose values contradict one another, are not plausible, or say too little.
        unreadable: Rows whose molecule or value cannot be read.
    """

    values: dict[str, Value]
    vague: int
    unreadable: int


def read_measured(one: Measured, folder: Path) -> Known[float]:
    """The measured values of a property, by molecule.

    Several measurements of a molecule are told as their mean, unless they contradict one another.

    Raises:
        DataError: If the file cannot be read, or lacks a column.
    """

    def agreed(values: list[float]) -> float | None:
        low, high = min(values), max(values)
        plausible = one.bounds[0] <= low and high <= one.bounds[1]
        return (
            math.fsum(values) / len(values) if plausible and high - low <= one.tolerance else None
        )

    return _read(folder / one.file, one.column, float, agreed)


def read_captions(folder: Path) -> Known[str]:
    """The beginning of each molecule's description, in whole sentences.

    A description whose first sentence is too long is no answer that can be learned, and one that
    is a few words long says nothing: neither is here.

    Raises:
        DataError: If the file cannot be read, or lacks a column.
    """
    return _read(folder / CAPTION_FILE, CAPTION, str, lambda texts: shortened(texts[0]))


def shortened(caption: str) -> str | None:
    """The first sentences that have at most `MAX_CAPTION_WORDS` words; ``None`` if none is left."""
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
    read: Callable[[str], Value],
    agreed: Callable[[list[Value]], Value | None],
) -> Known[Value]:
    found: dict[str, list[Value]] = {}
    unreadable = 0
    for smiles, cell in _cells(path, column):
        try:
            value = read(cell)
            if value == value:  # not a NaN, which is pandas' way to write a missing number
                found.setdefault(canonical_key(smiles), []).append(value)
        except ValueError:  # a `MoleculeError`, or not a number
            unreadable += 1
    values = {key: told for key, cells in found.items() if (told := agreed(cells)) is not None}
    return Known(values, len(found) - len(values), unreadable)


def _cells(path: Path, column: str) -> Iterator[tuple[str, str]]:
    require_columns(path, ("smiles", column))
    for row in read_rows(path, ("smiles", column)):
        if row[column] not in (None, ""):
            yield row["smiles"] or "", str(row[column])
