"""Measured pairs as the model is taught them: molecules by number, answers as tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moltc_vllm.chem import MoleculeError, PackedMolecule, featurize_library, packed_of
from moltc_vllm.data.dataset import Row, written
from moltc_vllm.data.instructions import value_text
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.prompt import limits_of
from moltc_vllm.models.tokenizer import MoltcTokenizer
from moltc_vllm.tasks import Choice, Number, Task, Terms

BLIND = "C"
"""The molecule that a model without graphs sees in place of every other one."""

_TERMS = 16  # of a list: the most frequent ones come first, and a median pair has fifty


class Molecules:
    """Molecules by number; each is read once, whoever names it.

    Args:
        config: The model's; says which molecules are too large.
        blind: Every molecule has the graph of `BLIND`.
    """

    def __init__(self, config: MoltcConfig, *, blind: bool = False) -> None:
        self._graph = packed_of(BLIND) if blind else None
        self.packed: list[PackedMolecule] = []
        self.smiles: list[str] = []
        self.refused: list[MoleculeError] = []
        self._limits = limits_of(config)
        self._numbers: dict[str, int] = {}

    def add(self, smiles: Iterable[str], workers: int | None = None) -> None:
        """Read molecules; those that the model does not take are in ``refused`` afterwards."""
        new = [text for text in dict.fromkeys(smiles) if text not in self._numbers]
        library = featurize_library(new, limits=self._limits, workers=workers)
        for text, row in zip(new, library, strict=True):
            if isinstance(row, MoleculeError):
                self._numbers[text] = -1
                self.refused.append(row)
            else:
                self._numbers[text] = len(self.packed)
                self.smiles.append(text)
                # Rows of one block share memory.
                atoms, degree, source, code = row[1]
                self.packed.append(
                    self._graph
                    or PackedMolecule(atoms.copy(), degree.copy(), source.copy(), code.copy())
                )

    def number(self, smiles: str) -> int:
        """A molecule's number; -1 if it was refused."""
        return self._numbers[smiles]


@dataclass(frozen=True, slots=True)
class Examples:
    """The pairs of one task, as arrays.

    Attributes:
        task: What is asked.
        molecules: ``[N, roles]`` int32, numbers of molecules.
        answers: ``[N]`` int32, which of ``texts`` is the answer.
        values: ``[N]`` float64, the number or label id that was measured; NaN for texts.
        texts: Token ids of the different answers, each with the end token.
    """

    task: Task
    molecules: npt.NDArray[np.int32]
    answers: npt.NDArray[np.int32]
    values: npt.NDArray[np.float64]
    texts: list[list[int]]

    def __len__(self) -> int:
        return len(self.answers)


def make_examples(
    task: Task,
    rows: Sequence[Row],
    molecules: Molecules,
    tokenizer: MoltcTokenizer,
    *,
    intervals: bool = True,
) -> Examples:
    """Turn measured rows into examples; rows with a refused molecule are left out.

    Args:
        task: What is asked.
        rows: Each has a target.
        molecules: Gets the rows' molecules.
        tokenizer: The model's.
        intervals: Whether numbers' answers begin with an interval.
    """
    molecules.add(text for row in rows for text in row.molecules)
    pairs: list[list[int]] = []
    answers: list[int] = []
    values: list[float] = []
    numbers: dict[str, int] = {}
    for row in rows:
        pair = [molecules.number(text) for text in row.molecules]
        if min(pair) < 0:
            continue
        pairs.append(pair)
        text = answer_text(task, row)
        if isinstance(task.kind, Number) and not intervals:
            text = value_text(text)
        answers.append(numbers.setdefault(text, len(numbers)))
        values.append(_value(task, row.target))
    end = tokenizer.eos_token_id
    return Examples(
        task,
        np.array(pairs, np.int32).reshape(len(pairs), len(task.roles)),
        np.array(answers, np.int32),
        np.array(values, np.float64),
        [[*tokenizer.encode(text, add_special_tokens=False), end] for text in numbers],
    )


def answer_text(task: Task, row: Row) -> str:
    """What the model is taught to say; of a long list its beginning.

    Raises:
        DataError: If the task cannot say it.
    """
    if isinstance(task.kind, Terms) and isinstance(row.target, tuple):
        row = replace(row, target=row.target[:_TERMS])
    return written(task, row, task.name)


def _value(task: Task, target: Any) -> float:
    return float(target) if isinstance(task.kind, Number | Choice) else float("nan")
