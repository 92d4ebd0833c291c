"""Loss of a batch: cross entropy of answer tokens, with smoothed targets for numbers."""

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
from moltc_vllm.train.batch import IGNORED_LABEL, Batch, PairGroup
from moltc_vllm.train.recipe import LossSettings


class LossComponents(NamedTuple):
    """Loss of a batch and its components, each a mean over the pairs."""

    total: Tensor  # the minimized loss
    first_token: Tensor  # cross entropy of the answers' first tokens
    text: Tensor  # cross entropy of the later tokens, where they are trained on
    expected_value: Tensor  # Huber loss of the expected positions of numbers


class AnswerLoss:
    """Loss of a model's answers.

    Args:
        settings: Weights of the components and width of the smoothing.
        tokenizer: Tokenizer of the model; targets are smoothed for tasks whose intervals are one
            token each.
        intervals: Whether numeric answers begin with an interval.
    """

    def __init__(
        self, settings: LossSettings, tokenizer: MoltcTokenizer, intervals: bool = True
    ) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._intervals = intervals
        self._vocabularies: dict[str, IntervalVocabulary | None] = {}

    def __call__(self, model: MoltcModel, batch: Batch) -> LossComponents:
        """Compute the loss of a batch."""
        sums = [
            self._group_sums(logits, group)
            for group, logits in answer_logits(model, batch, full_text=True)
        ]
        first_token, text, expected_value = (
            sum(column) / batch.num_pairs for column in zip(*sums, strict=True)
        )
        settings = self._settings
        total = (
            first_token
            + settings.text_loss_weight * text
            + settings.expected_value_weight * expected_value
        )
        return LossComponents(total, first_token.detach(), text.detach(), expected_value.detach())

    def _group_sums(self, logits: Tensor, group: PairGroup) -> tuple[Tensor, Tensor, Tensor]:
        """Sum the components over a group's pairs; ``logits`` is ``[G, A, V]``."""
        entropy = F.cross_entropy(
            logits.flatten(0, 1),
            group.labels.flatten(),
            ignore_index=IGNORED_LABEL,
            reduction="none",
        ).view_as(group.labels)
        first_token, text = entropy[:, 0], entropy[:, 1:].sum()
        expected_value = entropy.new_zeros(())
        for rows, vocabulary in self._numeric_rows(group.tasks):
            smoothed, distance = self._interval_losses(
                vocabulary, logits[rows, 0], group.values[rows].to(logits.device)
            )
            first_token = first_token.index_copy(0, rows.to(first_token.device), smoothed)
            expected_value = expected_value + distance
        return first_token.sum(), text, expected_value

    def _numeric_rows(self, tasks: Sequence[Task]) -> list[tuple[Tensor, IntervalVocabulary]]:
        """Return the rows of each task whose answers begin with an interval token."""
        rows: dict[str, list[int]] = {}
        for row, task in enumerate(tasks):
            rows.setdefault(task.name, []).append(row)
            if task.name not in self._vocabularies:
                self._vocabularies[task.name] = (
                    interval_vocabulary(task, self._tokenizer) if self._intervals else None
                )
        return [
            (torch.tensor(task_rows), vocabulary)
            for name, task_rows in rows.items()
            if (vocabulary := self._vocabularies[name]) is not None
        ]

    def _interval_losses(
        self, vocabulary: IntervalVocabulary, logits: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute cross entropy with smoothed targets, and the Huber loss of expected positions.

        Args:
            vocabulary: Interval tokens of the task.
            logits: ``[B, V]``, of the first answer token.
            values: ``[B]`` measured values.

        Returns:
            ``[B]`` cross entropies, and the sum of the Huber losses.
        """
        position = vocabulary.positions(values)
        token_ids = vocabulary.token_ids.to(logits.device)
        logprobs = logits.log_softmax(-1)[:, token_ids]  # normalized over the whole vocabulary
        centers = torch.arange(len(token_ids), device=logits.device) + 0.5
        if sigma := self._settings.gaussian_label_sigma:
            distance = (centers - position[:, None]) / sigma
            target = (-0.5 * distance**2).softmax(-1)
        else:
            target = F.one_hot(position.long(), len(token_ids)).float()
        expected = (logprobs.softmax(-1) * centers).sum(-1)
        return -(target * logprobs).sum(-1), F.huber_loss(expected, position, reduction="sum")


def answer_logits(
    model: MoltcModel, batch: Batch, *, full_text: bool
) -> Iterator[tuple[PairGroup, Tensor]]:
    """Compute the logits of each group's answers.

    Padding is on the right, where causal attention does not see it, so no mask is needed.

    Args:
        model: Model to evaluate.
        batch: Pairs with their prompts.
        full_text: Whether to compute all answer tokens; otherwise only the first one.

    Yields:
        Group and its logits, ``[G, A, V]`` float32; A is 1 without ``full_text``.
    """
    language: Any = model.language_model
    tokens = model.encode_molecules(batch.molecules, batch.projector, batch.molecule_index)
    for group in batch.groups:
        embeds = model.merge_molecule_tokens(group.input_ids, tokens[group.occurrences])
        count = group.labels.shape[1] if full_text else 1
        first, last = int(group.answer_start.min()), int(group.answer_start.max())
        positions = torch.arange(first, last + count, device=embeds.device)
        logits = language(
            inputs_embeds=embeds, use_cache=False, logits_to_keep=positions
        ).logits.float()
        if first != last:
            offsets = (group.answer_start - first)[:, None] + torch.arange(count)
            rows = torch.arange(len(offsets), device=logits.device)[:, None]
            logits = logits[rows, offsets.to(logits.device)]
        if model.config.mask_molecule_token:  # an answer never contains the placeholder
            logits[..., model.config.molecule_token_id] = float("-inf")
        yield group, logits
