"""Collation of pairs to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.projector import projector_index
from moltc_vllm.models.prompt import expand_placeholders
from moltc_vllm.models.prompt_composer import PromptComposer
from moltc_vllm.models.tokenizer import MoltcTokenizer
from moltc_vllm.tasks import Task
from moltc_vllm.train.examples import MoleculeTable

IGNORED_LABEL = -100

_LENGTH_STEP = 8  # prompts are grouped by their length, rounded up to a multiple of this
_EXACT_ANSWER_LENGTHS = 4  # answers up to this length are grouped by their exact length
_CACHED_PROMPTS = 100_000


class PairItem(NamedTuple):
    """One pair of a batch.

    Attributes:
        task: Task of the pair.
        molecules: Indices of the molecules, in the order of the task's roles.
        answer: Token ids to train on, with the end token if that is trained; empty in validation.
        value: Measured number or label id; NaN for texts and lists.
    """

    task: Task
    molecules: Sequence[int]
    answer: Sequence[int]
    value: float


class PairGroup(NamedTuple):
    """G pairs of a batch whose prompts and answers have about the same length."""

    input_ids: Tensor  # [G, T] prompt and answer without its last token, padded on the right
    labels: Tensor  # [G, A] tokens of the answers; IGNORED_LABEL after shorter ones
    answer_start: Tensor  # [G] on the host, position that predicts the first answer token
    occurrences: slice  # the group's part of the batch's molecule occurrences
    values: Tensor  # [G] float32
    tasks: list[Task]
    pair_indices: list[int]  # [G] positions of the pairs in the batch


class Batch(NamedTuple):
    """Pairs with M distinct molecules, which occur P times in prompts."""

    molecules: BatchMolGraph  # M graphs
    molecule_index: Tensor  # [P] molecule of each occurrence
    projector: Tensor  # [P] on the host, projector of each occurrence
    groups: list[PairGroup]
    num_pairs: int


class Collator:
    """Conversion of pairs to batches, with prompts in the checkpoint's style.

    Pairs of about the same length form a group, which passes through the language model together
    with little padding.

    Args:
        molecules: Molecules of all pairs.
        config: Configuration of the model.
        tokenizer: Tokenizer of the model.
        device: Device of the tensors.
    """

    def __init__(
        self,
        molecules: MoleculeTable,
        config: MoltcConfig,
        tokenizer: MoltcTokenizer,
        device: torch.device | str = "cpu",
    ) -> None:
        self._molecules = molecules
        self._config = config
        self._tokenizer = tokenizer
        self._device = device
        self._composer = PromptComposer(config)
        self._prompt_ids: dict[str, list[int]] = {}

    def __call__(self, items: Sequence[PairItem]) -> Batch:
        """Collate pairs."""
        prompts = [self._prompt(item.task, item.molecules) for item in items]
        occurrences: list[int] = []
        projector: list[int] = []
        groups = []
        for indices in _group_by_length(items, [ids for ids, _ in prompts]):
            begin = len(occurrences)
            for index in indices:
                item, (_, order) = items[index], prompts[index]
                for role, position in enumerate(order):
                    occurrences.append(item.molecules[position])
                    projector.append(projector_index(self._config, role, item.task.name))
            rows = [(prompts[index][0], items[index]) for index in indices]
            groups.append(self._group(rows, slice(begin, len(occurrences)), indices))
        distinct, molecule_index = np.unique(np.array(occurrences), return_inverse=True)
        packed = [self._molecules.packed[index] for index in distinct]
        return Batch(
            BatchMolGraph.from_molecules(packed, self._device),
            torch.from_numpy(molecule_index).to(self._device),
            torch.tensor(projector),
            groups,
            len(items),
        )

    def _group(
        self, rows: list[tuple[list[int], PairItem]], occurrences: slice, indices: list[int]
    ) -> PairGroup:
        answer_start = torch.tensor([len(prompt) - 1 for prompt, _ in rows])
        longest = max(len(item.answer) for _, item in rows)
        # The last token of an answer is a label only, so it is not an input.
        width = int(answer_start.max()) + max(longest, 1)
        input_ids = torch.full((len(rows), width), int(self._tokenizer.pad_token_id))
        labels = torch.full((len(rows), longest), IGNORED_LABEL)
        for row, (prompt, item) in enumerate(rows):
            ids = [*prompt, *item.answer[:-1]]
            input_ids[row, : len(ids)] = torch.tensor(ids)
            labels[row, : len(item.answer)] = torch.tensor(item.answer, dtype=torch.int64)
        return PairGroup(
            input_ids.to(self._device),
            labels.to(self._device),
            answer_start,
            occurrences,
            torch.tensor([item.value for _, item in rows], dtype=torch.float32),
            [item.task for _, item in rows],
            indices,
        )

    def _prompt(self, task: Task, molecules: Sequence[int]) -> tuple[list[int], tuple[int, ...]]:
        """Return the token ids of a pair's prompt, and the order of the molecules in it."""
        smiles = [self._molecules.smiles[index] for index in molecules]
        text, order = self._composer.compose(task, smiles)
        if text not in self._prompt_ids:
            # If prompts contain SMILES, every pair has its own, so the cache must be bounded.
            if len(self._prompt_ids) > _CACHED_PROMPTS:
                self._prompt_ids.clear()
            ids = self._tokenizer.encode(text, add_special_tokens=False)
            self._prompt_ids[text] = expand_placeholders(ids, self._config)
        return self._prompt_ids[text], order


def _group_by_length(
    items: Sequence[PairItem], prompts: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Group the indices of pairs with prompts and answers of similar length."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (item, prompt) in enumerate(zip(items, prompts, strict=True)):
        length = len(item.answer)
        if length > _EXACT_ANSWER_LENGTHS:
            length = 1 << (length - 1).bit_length()  # the next power of two
        groups.setdefault((-(-len(prompt) // _LENGTH_STEP), length), []).append(index)
    return list(groups.values())
