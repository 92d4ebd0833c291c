"""Collation of pairs to tensors, in whole arrays rather than pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.projector import projector_index
from moltc_vllm.models.prompt import expand_placeholders
from moltc_vllm.models.prompt_composer import ignores_order
from moltc_vllm.models.tokenizer import MoltcTokenizer
from moltc_vllm.tasks import Task
from moltc_vllm.train.examples import AnswerTokens, MoleculeTable

IGNORED_LABEL = -100

_LENGTH_STEP = 8  # prompts are grouped by their length, rounded up to a multiple of this
_EXACT_ANSWER_LENGTHS = 4  # answers up to this length are grouped by their exact length
_CACHED_PROMPTS = 100_000

Integers = npt.NDArray[np.int64]


class PairBlock(NamedTuple):
    """Pairs of one task.

    Attributes:
        task: Task of the pairs.
        molecules: ``[n, roles]`` indices of the molecules, in the order of the task's roles.
        texts: Distinct answers of the data set.
        answers: ``[n]`` index in ``texts`` of each pair's answer.
        lengths: ``[n]`` number of answer tokens to train on; 0 in validation.
        values: ``[n]`` measured number or label id; NaN for texts and lists.
    """

    task: Task
    molecules: npt.NDArray[np.integer]
    texts: AnswerTokens
    answers: npt.NDArray[np.integer]
    lengths: Integers
    values: npt.NDArray[np.float64]


class TaskRows(NamedTuple):
    """Consecutive rows of a group that belong to one task."""

    task: Task
    rows: slice


class PairGroup(NamedTuple):
    """G pairs of a batch whose prompts and answers have about the same length."""

    input_ids: Tensor  # [G, T] prompt and answer without its last token, padded on the right
    labels: Tensor  # [G, A] tokens of the answers; IGNORED_LABEL after shorter ones
    answer_start: Tensor  # [G] on the host, position that predicts the first answer token
    occurrences: slice  # the group's part of the batch's molecule occurrences
    values: Tensor  # [G] float64 on the host
    tasks: list[TaskRows]
    pair_indices: Integers  # [G] positions of the pairs in the batch


class Batch(NamedTuple):
    """Pairs with M distinct molecules, which occur P times in prompts."""

    molecules: BatchMolGraph  # M graphs
    molecule_index: Tensor  # [P] molecule of each occurrence
    projector: Tensor  # [P] on the host, projector of each occurrence
    groups: list[PairGroup]
    num_pairs: int


class _Prompts(NamedTuple):
    """Prompts of a block of n pairs."""

    ids: Integers  # [n or 1, P] token ids, padded on the right; one row if all prompts are equal
    lengths: Integers  # [n] number of tokens
    molecules: Integers  # [n, roles] molecules in the order of their placeholders
    projector: Integers  # [roles] projector of each placeholder


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
        self._prompt_ids: dict[str, Integers] = {}

    def __call__(self, blocks: Sequence[PairBlock]) -> Batch:
        """Collate pairs."""
        prompts = [self._prompts(block) for block in blocks]
        sizes = [len(block.answers) for block in blocks]
        first_pair = np.cumsum([0, *sizes])
        groups: list[PairGroup] = []
        occurrences: list[Integers] = []
        projector: list[Integers] = []
        begin = 0
        for parts in _group_by_length(blocks, prompts):
            for index, rows in parts:
                occurrences.append(prompts[index].molecules[rows].ravel())
                projector.append(np.tile(prompts[index].projector, len(rows)))
            end = begin + sum(prompts[index].molecules[rows].size for index, rows in parts)
            pair_indices = np.concatenate([first_pair[index] + rows for index, rows in parts])
            members = [(blocks[index], prompts[index], rows) for index, rows in parts]
            groups.append(self._group(members, slice(begin, end), pair_indices))
            begin = end
        distinct, molecule_index = np.unique(np.concatenate(occurrences), return_inverse=True)
        return Batch(
            self._molecules.resident(self._device).gather(torch.from_numpy(distinct)),
            torch.from_numpy(molecule_index).to(self._device),
            torch.from_numpy(np.concatenate(projector)),
            groups,
            int(first_pair[-1]),
        )

    def _group(
        self,
        members: Sequence[tuple[PairBlock, _Prompts, Integers]],
        occurrences: slice,
        pair_indices: Integers,
    ) -> PairGroup:
        count = len(pair_indices)
        lengths = np.concatenate([prompts.lengths[rows] for _, prompts, rows in members])
        answer_lengths = np.concatenate([block.lengths[rows] for block, _, rows in members])
        longest = int(answer_lengths.max())
        # The last token of an answer is a label only, so it is not an input.
        width = int(lengths.max()) - 1 + max(longest, 1)
        input_ids = np.full((count, width), int(self._tokenizer.pad_token_id))
        labels = np.full((count, longest), IGNORED_LABEL)
        tasks = []
        begin = 0
        for block, prompts, rows in members:
            part = slice(begin, begin + len(rows))
            tasks.append(TaskRows(block.task, part))
            ids = prompts.ids if len(prompts.ids) == 1 else prompts.ids[rows]
            _fill(input_ids[part], ids, lengths[part])
            if longest:
                answers = block.texts.ids[block.answers[rows], :longest]
                _fill(labels[part], answers, answer_lengths[part])
            begin = part.stop
        if longest > 1:
            column = np.arange(longest - 1)
            row, offset = np.nonzero(column < answer_lengths[:, None] - 1)
            input_ids[row, lengths[row] + offset] = labels[row, offset]
        return PairGroup(
            torch.from_numpy(input_ids).to(self._device),
            torch.from_numpy(labels).to(self._device),
            torch.from_numpy(lengths - 1),
            occurrences,
            torch.from_numpy(np.concatenate([block.values[rows] for block, _, rows in members])),
            tasks,
            pair_indices,
        )

    def _prompts(self, block: PairBlock) -> _Prompts:
        molecules = self._sort_symmetric(block.task, np.asarray(block.molecules, np.int64))
        count, roles = molecules.shape
        projector = np.array(
            [projector_index(self._config, role, block.task.name) for role in range(roles)]
        )
        style = self._config.style
        if not style.shows_smiles:
            # The prompt of every pair is the same, whatever its molecules.
            text, order = style.compose(block.task, ["C"] * roles)
            ids = self._encode(text)
            lengths = np.full(count, len(ids))
            return _Prompts(ids[None], lengths, molecules[:, list(order)], projector)
        smiles = self._molecules.smiles
        composed = [
            style.compose(block.task, [smiles[index] for index in pair])
            for pair in molecules.tolist()
        ]
        rows = [self._encode(text) for text, _ in composed]
        lengths = np.array([len(row) for row in rows], np.int64)
        padded = np.zeros((count, int(lengths.max(initial=0))), np.int64)
        for row, ids in zip(padded, rows, strict=True):
            row[: len(ids)] = ids
        orders = np.array([order for _, order in composed], np.int64).reshape(count, roles)
        return _Prompts(padded, lengths, np.take_along_axis(molecules, orders, 1), projector)

    def _sort_symmetric(self, task: Task, molecules: Integers) -> Integers:
        """Put pairs into the order in which the checkpoint asks symmetric tasks."""
        if not ignores_order(self._config, task) or molecules.shape[1] != len(task.roles):
            return molecules
        order = np.argsort(self._molecules.canonical_ranks()[molecules], axis=1, kind="stable")
        return np.take_along_axis(molecules, order, 1)

    def _encode(self, text: str) -> Integers:
        if text not in self._prompt_ids:
            # If prompts contain SMILES, every pair has its own, so the cache must be bounded.
            if len(self._prompt_ids) > _CACHED_PROMPTS:
                self._prompt_ids.clear()
            ids = self._tokenizer.encode(text, add_special_tokens=False)
            self._prompt_ids[text] = np.array(expand_placeholders(ids, self._config), np.int64)
        return self._prompt_ids[text]


def _fill(target: Integers, ids: Integers, lengths: Integers) -> None:
    """Copy the first ``lengths[i]`` of ``ids[i]`` (or of its only row) into ``target[i]``."""
    width = int(lengths.max(initial=0))
    inside = np.arange(width) < lengths[:, None]
    target[:, :width][inside] = np.broadcast_to(ids[:, :width], inside.shape)[inside]


def _group_by_length(
    blocks: Sequence[PairBlock], prompts: Sequence[_Prompts]
) -> list[list[tuple[int, Integers]]]:
    """Group pairs with prompts and answers of similar length.

    Returns:
        For each group, in the order of their first pairs: blocks by index, with the rows in them.
    """
    groups: dict[tuple[int, int], list[tuple[int, Integers]]] = {}
    for index, (block, block_prompts) in enumerate(zip(blocks, prompts, strict=True)):
        keys = np.stack(
            [-(-block_prompts.lengths // _LENGTH_STEP), _length_classes(block.lengths)], 1
        )
        distinct, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        for number in np.argsort(first).tolist():
            prompt_class, answer_class = distinct[number].tolist()
            rows = np.flatnonzero(group.ravel() == number)
            groups.setdefault((prompt_class, answer_class), []).append((index, rows))
    return list(groups.values())


def _length_classes(lengths: Integers) -> Integers:
    """Round longer answers up to the next power of two."""
    powers = 1 << np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64)
    return np.where(lengths > _EXACT_ANSWER_LENGTHS, powers, lengths)
