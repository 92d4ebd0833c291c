"""The loss of a batch: cross entropy of the answers' tokens, softened where they are numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from moltc_vllm.models.interval_tokens import IntervalVocabulary, interval_vocabulary
from moltc_vllm.models.moltc import MoltcModel
from moltc_vllm.models.tokenizer import MoltcTokenizer
from moltc_vllm.tasks import Task
from moltc_vllm.train.batch import IGNORED, Batch, Group
from moltc_vllm.train.recipe import Loss


class LossComponents(NamedTuple):
    """The parts of a batch's loss, per pair; ``total`` is minimised."""

    total: Tensor
    first: Tensor  # cross entropy of the answers' first tokens
    rest: Tensor  # of their other tokens, where they are taught
    expected: Tensor  # Huber loss of the expected positions of numbers


class AnswerLoss:
    """Measures a model's answers.

    Args:
        weights: What counts how much.
        tokenizer: The model's; numbers are softened where each interval is one token of it.
        intervals: Whether numbers' answers begin with an interval.
    """

    def __init__(self, weights: Loss, tokenizer: MoltcTokenizer, intervals: bool = True) -> None:
        self._weights = weights
        self._tokenizer = tokenizer
        self._intervals = intervals
        self._scales: dict[str, IntervalVocabulary | None] = {}

    def __call__(self, model: MoltcModel, batch: Batch) -> LossComponents:
        """The loss of a batch."""
        parts = [
            self._of_group(logits, group)
            for group, logits in answer_logits(model, batch, whole=True)
        ]
        first, rest, expected = (sum(column) / batch.pairs for column in zip(*parts, strict=True))
        total = first + self._weights.rest * rest + self._weights.expected * expected
        return LossComponents(total, first.detach(), rest.detach(), expected.detach())

    def _of_group(self, logits: Tensor, group: Group) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over the group's pairs; ``logits [G, A, V]``."""
        entropy = F.cross_entropy(
            logits.flatten(0, 1), group.labels.flatten(), ignore_index=IGNORED, reduction="none"
        ).view_as(group.labels)
        first, rest = entropy[:, 0], entropy[:, 1:].sum()
        expected = entropy.new_zeros(())
        for rows, scale in self._numbers(group.tasks):
            soft, off = self._soft(scale, logits[rows, 0], group.values[rows].to(logits.device))
            first = first.index_copy(0, rows.to(first.device), soft)
            expected = expected + off
        return first.sum(), rest, expected

    def _numbers(self, tasks: Sequence[Task]) -> list[tuple[Tensor, IntervalVocabulary]]:
        """The rows of each task whose answers begin with an interval's token."""
        rows: dict[str, list[int]] = {}
        for number, task in enumerate(tasks):
            rows.setdefault(task.name, []).append(number)
            if task.name not in self._scales:
                scale = interval_vocabulary(task, self._tokenizer) if self._intervals else None
                self._scales[task.name] = scale
        return [
            (torch.tensor(numbers), scale)
            for name, numbers in rows.items()
            if (scale := self._scales[name]) is not None
        ]

    def _soft(
        self, scale: IntervalVocabulary, logits: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Softened cross entropy of each pair, and the sum of how far off the mean is."""
        position = scale.positions(values)
        chances = logits.log_softmax(-1)[:, scale.tokens.to(logits.device)]  # among all tokens
        at = torch.arange(len(scale.tokens), device=logits.device) + 0.5
        if self._weights.soften:
            distance = (at - position[:, None]) / self._weights.soften
            target = (-0.5 * distance**2).softmax(-1)
        else:
            target = F.one_hot(position.long(), len(scale.tokens)).float()
        expected = (chances.softmax(-1) * at).sum(-1)
        return -(target * chances).sum(-1), F.huber_loss(expected, position, reduction="sum")


def answer_logits(
    model: MoltcModel, batch: Batch, *, whole: bool
) -> Iterator[tuple[Group, Tensor]]:
    """Logits of the answers of each group, ``[G, A, V]`` float32, or of their first tokens alone.

    Padding is on the right, where no token sees it: no mask is needed.
    """
    language: Any = model.language_model
    tokens = model.encode_molecules(batch.molecules, batch.projector, batch.which)
    for group in batch.groups:
        embeds = model.splice(group.input_ids, tokens[group.places])
        count = group.labels.shape[1] if whole else 1
        first, last = int(group.start.min()), int(group.start.max())
        wanted = torch.arange(first, last + count, device=embeds.device)
        logits = language(
            inputs_embeds=embeds, use_cache=False, logits_to_keep=wanted
        ).logits.float()
        if first != last:
            places = (group.start - first)[:, None] + torch.arange(count)
            rows = torch.arange(len(places), device=logits.device)[:, None]
            logits = logits[rows, places.to(logits.device)]
        if model.config.mask_molecule_token:  # the placeholder is never an answer
            logits[..., model.config.molecule_token_id] = float("-inf")
        yield group, logits
