"""From numbers of pairs to a batch of tensors."""

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
from moltc_vllm.models.tokenizer import MoltcTokenizer
from moltc_vllm.tasks import Task
from moltc_vllm.train.examples import Molecules

IGNORED = -100

_STEP = 8
"""Prompts whose lengths differ by less go through the language model together."""


class Item(NamedTuple):
    """One pair to learn: molecules by number in the task's order, and the answer's tokens."""

    task: Task
    molecules: Sequence[int]
    answer: Sequence[int]  # all that is taught, with the end token if that is
    value: float


class Group(NamedTuple):
    """G pairs of about the same number of tokens."""

    input_ids: Tensor  # [G, T] prompt and answer without its last token, padded on the right
    labels: Tensor  # [G, A] the answers' tokens; IGNORED after the shorter ones
    start: Tensor  # [G] on the host: where the first of them is predicted; the others follow
    places: slice  # which of the batch's places are theirs
    values: Tensor  # [G] float32
    tasks: list[Task]
    numbers: list[int]  # which pairs of the batch they are


class Batch(NamedTuple):
    """Pairs with M different molecules at P places."""

    molecules: BatchMolGraph  # M graphs
    which: Tensor  # [P] which of them stands at each place
    projector: Tensor  # [P] on the host
    groups: list[Group]
    pairs: int


class Collator:
    """Puts pairs into batches as the checkpoint's prompt style asks about them.

    Pairs whose prompts and answers are about equally long go through the language model together:
    little is padded.

    Args:
        molecules: All molecules by number.
        config: The model's.
        tokenizer: The model's.
        device: Where the tensors go.
    """

    def __init__(
        self,
        molecules: Molecules,
        config: MoltcConfig,
        tokenizer: MoltcTokenizer,
        device: torch.device | str = "cpu",
    ) -> None:
        self._molecules = molecules
        self._config = config
        self._tokenizer = tokenizer
        self._device = device
        self._tokens: dict[str, list[int]] = {}

    def __call__(self, items: Sequence[Item]) -> Batch:
        """Join some pairs; an item without an answer is only asked."""
        prompts = [self._prompt(item.task, item.molecules) for item in items]
        alike: dict[tuple[int, int], list[int]] = {}
        for number, (item, (prompt, _)) in enumerate(zip(items, prompts, strict=True)):
            length = len(item.answer)
            # Up to four tokens exactly, then in doublings.
            key = length if length <= 4 else 1 << (length - 1).bit_length()
            alike.setdefault((-(-len(prompt) // _STEP), key), []).append(number)
        places: list[int] = []
        projector: list[int] = []
        groups = []
        for numbers in alike.values():
            begin = len(places)
            for number in numbers:
                item, (_, order) = items[number], prompts[number]
                for role, place in enumerate(order):
                    places.append(item.molecules[place])
                    projector.append(projector_index(self._config, role, item.task.name))
            chosen = [(prompts[number][0], items[number]) for number in numbers]
            groups.append(self._group(chosen, slice(begin, len(places)), numbers))
        distinct, which = np.unique(np.array(places), return_inverse=True)
        packed = [self._molecules.packed[number] for number in distinct]
        return Batch(
            BatchMolGraph.from_molecules(packed, self._device),
            torch.from_numpy(which).to(self._device),
            torch.tensor(projector),
            groups,
            len(items),
        )

    def _group(
        self, chosen: list[tuple[list[int], Item]], places: slice, numbers: list[int]
    ) -> Group:
        start = torch.tensor([len(prompt) - 1 for prompt, _ in chosen])
        longest = max(len(item.answer) for _, item in chosen)
        # The last token of an answer is only predicted.
        width = int(start.max()) + max(longest, 1)
        input_ids = torch.full((len(chosen), width), int(self._tokenizer.pad_token_id))
        labels = torch.full((len(chosen), longest), IGNORED)
        for row, (prompt, item) in enumerate(chosen):
            shown = [*prompt, *item.answer[:-1]]
            input_ids[row, : len(shown)] = torch.tensor(shown)
            labels[row, : len(item.answer)] = torch.tensor(item.answer, dtype=torch.int64)
        return Group(
            input_ids.to(self._device),
            labels.to(self._device),
            start,
            places,
            torch.tensor([item.value for _, item in chosen], dtype=torch.float32),
            [item.task for _, item in chosen],
            numbers,
        )

    def _prompt(self, task: Task, molecules: Sequence[int]) -> tuple[list[int], tuple[int, ...]]:
        smiles = [self._molecules.smiles[number] for number in molecules]
        text, order = self._config.style.compose(task, smiles)
        if text not in self._tokens:
            if len(self._tokens) > 100_000:  # texts with SMILES are as many as there are pairs
                self._tokens.clear()
            ids = self._tokenizer.encode(text, add_special_tokens=False)
            self._tokens[text] = expand_placeholders(ids, self._config)
        return self._tokens[text], order
