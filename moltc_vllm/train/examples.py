"""Training examples as arrays: molecules by index, answers as token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from moltc_vllm.chem import MoleculeError, PackedMolecule, featurize_library, packed_of
from moltc_vllm.data.dataset import Row, write_answer
from moltc_vllm.data.instructions import value_text
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.prompt import molecule_limits
from moltc_vllm.models.tokenizer import MoltcTokenizer
from moltc_vllm.tasks import Choice, Number, Task, Terms
from moltc_vllm.train.resident import ResidentMolecules

BLIND_SMILES = "C"
"""Molecule whose graph replaces every other one in the ablation ``graph``."""

_MAX_TERMS = 16  # the terms of a list are sorted by frequency, and a median pair has fifty

_REJECTED = -1


class MoleculeTable:
    """Featurized molecules of a run, each read once and addressed by its index.

    Args:
        config: Configuration of the model, with its limits on molecule size and standardization.
        blind: Whether every molecule gets the graph of `BLIND_SMILES`.

    Attributes:
        packed: Graphs of the molecules.
        smiles: SMILES of the molecules, as written in the data.
        rejected: Errors of the molecules that are invalid or too large for the model.
    """

    def __init__(self, config: MoltcConfig, *, blind: bool = False) -> None:
        self._descriptors = config.graph_encoder_config.descriptors
        self._blind_graph = (
            packed_of(BLIND_SMILES, descriptors=self._descriptors) if blind else None
        )
        self.packed: list[PackedMolecule] = []
        self.smiles: list[str] = []
        self._keys: list[str] = []
        self._resident: dict[torch.device, ResidentMolecules] = {}
        self._ranks: npt.NDArray[np.int64] | None = None
        self.rejected: list[MoleculeError] = []
        self._limits = molecule_limits(config)
        self._standardization = config.standardization
        self._indices: dict[str, int] = {}

    def add(self, smiles: Iterable[str], workers: int | None = None) -> None:
        """Featurize the molecules that are not in the table yet.

        Args:
            smiles: SMILES to add.
            workers: Number of processes; see `featurize_library`.
        """
        new = [text for text in dict.fromkeys(smiles) if text not in self._indices]
        library = featurize_library(
            new,
            limits=self._limits,
            workers=workers,
            descriptors=self._descriptors,
            standardization=self._standardization,
        )
        for text, row in zip(new, library, strict=True):
            if isinstance(row, MoleculeError):
                self._indices[text] = _REJECTED
                self.rejected.append(row)
            else:
                self._indices[text] = len(self.packed)
                self.smiles.append(text)
                self._keys.append(row[0])
                # Without copies, one row would keep the arrays of its whole chunk in memory.
                self.packed.append(self._blind_graph or row[1].copy())

    def index(self, smiles: str) -> int | None:
        """Return the index of a molecule that was added; ``None`` if it was rejected."""
        index = self._indices[smiles]
        return None if index == _REJECTED else index

    def resident(self, device: torch.device | str) -> ResidentMolecules:
        """Return the molecules as arrays on a device, built anew after molecules were added."""
        device = torch.device(device)
        resident = self._resident.get(device)
        if resident is None or len(resident) != len(self.packed):
            resident = self._resident[device] = ResidentMolecules(self.packed, device)
        return resident

    def canonical_ranks(self) -> npt.NDArray[np.int64]:
        """Return the rank of each molecule by key and SMILES, as prompts order symmetric pairs."""
        if self._ranks is None or len(self._ranks) != len(self.packed):
            order = sorted(range(len(self.packed)), key=lambda i: (self._keys[i], self.smiles[i]))
            self._ranks = np.empty(len(order), np.int64)
            self._ranks[order] = np.arange(len(order))
        return self._ranks


class AnswerTokens(NamedTuple):
    """Token ids of K distinct answers, each with the end token."""

    ids: npt.NDArray[np.int64]  # [K, longest], padded with zeros
    lengths: npt.NDArray[np.int64]  # [K]

    @classmethod
    def from_lists(cls, texts: Sequence[Sequence[int]]) -> AnswerTokens:
        """Pad lists of token ids."""
        lengths = np.array([len(text) for text in texts], np.int64)
        ids = np.zeros((len(texts), int(lengths.max(initial=0))), np.int64)
        for row, text in zip(ids, texts, strict=True):
            row[: len(text)] = text
        return cls(ids, lengths)

    def as_lists(self) -> list[list[int]]:
        """Return the token ids without padding."""
        return [row[:length].tolist() for row, length in zip(self.ids, self.lengths, strict=True)]


@dataclass(frozen=True, slots=True)
class Examples:
    """Pairs of one task with their answers.

    Attributes:
        task: Task of all pairs.
        molecules: ``[N, roles]`` int32, indices in a `MoleculeTable`.
        answers: ``[N]`` int32, index in ``texts`` of each pair's answer.
        values: ``[N]`` float64, measured number or label id; NaN for texts and lists.
        texts: Token ids of the distinct answers.
    """

    task: Task
    molecules: npt.NDArray[np.int32]
    answers: npt.NDArray[np.int32]
    values: npt.NDArray[np.float64]
    texts: AnswerTokens

    def __len__(self) -> int:
        return len(self.answers)


def make_examples(
    task: Task,
    rows: Sequence[Row],
    molecules: MoleculeTable,
    tokenizer: MoltcTokenizer,
    *,
    intervals: bool = True,
) -> Examples:
    """Convert measured rows to examples; rows with a rejected molecule are dropped.

    Args:
        task: Task of the rows.
        rows: Rows that have a target.
        molecules: Table to which the rows' molecules are added.
        tokenizer: Tokenizer of the model.
        intervals: Whether numeric answers begin with an interval.

    Raises:
        DataError: If the task cannot express a target.
    """
    molecules.add(smiles for row in rows for smiles in row.molecules)
    pairs: list[list[int]] = []
    answers: list[int] = []
    values: list[float] = []
    text_indices: dict[str, int] = {}
    for row in rows:
        pair = [index for text in row.molecules if (index := molecules.index(text)) is not None]
        if len(pair) < len(row.molecules):
            continue
        pairs.append(pair)
        text = answer_text(task, row)
        if isinstance(task.kind, Number) and not intervals:
            text = value_text(text)
        answers.append(text_indices.setdefault(text, len(text_indices)))
        values.append(_value(task, row.target))
    end = tokenizer.eos_token_id
    return Examples(
        task,
        np.array(pairs, np.int32).reshape(len(pairs), len(task.roles)),
        np.array(answers, np.int32),
        np.array(values, np.float64),
        AnswerTokens.from_lists(
            [[*tokenizer.encode(text, add_special_tokens=False), end] for text in text_indices]
        ),
    )


def answer_text(task: Task, row: Row) -> str:
    """Return the answer that the model is trained to write; a long list is truncated.

    Raises:
        DataError: If the task cannot express the target.
    """
    if isinstance(task.kind, Terms) and isinstance(row.target, tuple):
        row = replace(row, target=row.target[:_MAX_TERMS])
    return write_answer(task, row, task.name)


def _value(task: Task, target: Any) -> float:
    return float(target) if isinstance(task.kind, Number | Choice) else float("nan")
