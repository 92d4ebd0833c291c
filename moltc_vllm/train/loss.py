"""Loss of a batch: cross entropy of answer tokens, with smoothed targets for numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from moltc_vllm.models.interval_tokens import IntervalVocabulary, interval_vocabulary
from moltc_vllm.models.moltc import MoltcModel
from moltc_vllm.models.tokenizer import MoltcTokenizer
from moltc_vllm.tasks import Choice, Task
from moltc_vllm.train.batch import IGNORED_LABEL, Batch, PairGroup
from moltc_vllm.train.recipe import LossSettings

LOSS_NAMES = ("loss", "first", "rest", "expected", "molecules")
"""Names of the components of a loss in the log."""


class LossComponents(NamedTuple):
    """Loss of a batch and its components, each a mean over the pairs."""

    total: Tensor  # the minimized loss
    first_token: Tensor  # cross entropy of the answers' first tokens
    text: Tensor  # cross entropy of the later tokens, where they are trained on
    expected_value: Tensor  # Huber loss of the expected positions of numbers
    molecules: Tensor | None = None  # loss of the auxiliary training of the encoder

    def as_floats(self) -> list[float]:
        """Return the components that the training has, in the order of `LOSS_NAMES`."""
        return [float(value) for value in self if value is not None]


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
        self._first_tokens_of: dict[str, Tensor | None] = {}

    def __call__(self, model: MoltcModel, batch: Batch) -> LossComponents:
        """Compute the loss of a batch."""
        tokens = model.encode_molecules(batch.molecules, batch.projector, batch.molecule_index)
        sums = []
        for group in batch.groups:
            embeds = model.merge_molecule_tokens(group.input_ids, tokens[group.occurrences])
            candidates = self._answer_tokens(group)
            if candidates is None:
                logits = group_logits(model, group, embeds, full_text=True)
                sums.append(self._group_sums(logits, group))
            else:
                hidden = first_hidden_states(model, group, embeds)
                weight = model.language_model.get_output_embeddings().weight
                sums.append(self._candidate_sums(hidden, weight, group, candidates))
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

    def _answer_tokens(self, group: PairGroup) -> list[Tensor] | None:
        """Return the first tokens of each task's answers, if the loss is over them alone.

        ``None`` if later tokens are trained on as well, or if one task's first token does not
        decide its answer.
        """
        if self._settings.first_token_over == "vocabulary" or group.labels.shape[1] > 1:
            return None
        candidates = [self._first_tokens(task) for task, _ in group.tasks]
        known = [tokens for tokens in candidates if tokens is not None]
        return known if len(known) == len(candidates) else None

    def _first_tokens(self, task: Task) -> Tensor | None:
        if task.name not in self._first_tokens_of:
            vocabulary = self._vocabulary(task)
            tokens = label_tokens(task, self._tokenizer)
            self._first_tokens_of[task.name] = (
                vocabulary.token_ids
                if vocabulary is not None
                else None
                if tokens is None
                else torch.tensor(tokens)
            )
        return self._first_tokens_of[task.name]

    def _candidate_sums(
        self, hidden: Tensor, weight: Tensor, group: PairGroup, candidates: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sum the components over a group's pairs, with softmaxes over the tasks' answers only.

        Args:
            hidden: ``[G, D]`` hidden states that predict the first tokens.
            weight: ``[V, D]`` output embeddings of the language model.
            group: The group.
            candidates: First tokens of the answers of each task of the group.
        """
        first_token, expected_value = hidden.new_zeros(()), hidden.new_zeros(())
        for (task, rows), token_ids in zip(group.tasks, candidates, strict=True):
            ids = token_ids.to(hidden.device)
            logits = F.linear(hidden[rows], weight[ids]).float()  # [n, K]
            vocabulary = self._vocabulary(task)
            if vocabulary is not None:
                losses, distance = self._smoothed_losses(
                    vocabulary, logits.log_softmax(-1), group.values[rows]
                )
                first_token = first_token + losses.sum()
                expected_value = expected_value + distance
            else:
                target = (group.labels[rows, :1] == ids).int().argmax(1)
                first_token = first_token + F.cross_entropy(logits, target, reduction="sum")
        return first_token, hidden.new_zeros(()), expected_value

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
        for task, rows in group.tasks:
            vocabulary = self._vocabulary(task)
            if vocabulary is None:
                continue
            # Normalized over the whole vocabulary.
            logprobs = logits[rows, 0].log_softmax(-1)[:, vocabulary.token_ids.to(logits.device)]
            smoothed, distance = self._smoothed_losses(vocabulary, logprobs, group.values[rows])
            first_token = torch.cat([first_token[: rows.start], smoothed, first_token[rows.stop :]])
            expected_value = expected_value + distance
        return first_token.sum(), text, expected_value

    def _vocabulary(self, task: Task) -> IntervalVocabulary | None:
        """Return the interval tokens of a task whose answers begin with one."""
        return interval_vocabulary(task, self._tokenizer) if self._intervals else None

    def _smoothed_losses(
        self, vocabulary: IntervalVocabulary, logprobs: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute cross entropy with smoothed targets, and the Huber loss of expected positions.

        Args:
            vocabulary: Interval tokens of the task.
            logprobs: ``[B, K]`` log-probabilities of the intervals.
            values: ``[B]`` measured values, on the host.

        Returns:
            ``[B]`` cross entropies, and the sum of the Huber losses.
        """
        position = vocabulary.positions(values).to(logprobs.device)
        intervals = logprobs.shape[1]
        centers = torch.arange(intervals, device=logprobs.device) + 0.5
        if sigma := self._settings.gaussian_label_sigma:
            distance = (centers - position[:, None]) / sigma
            target = (-0.5 * distance**2).softmax(-1)
        else:
            target = F.one_hot(position.long(), intervals).float()
        expected = (logprobs.softmax(-1) * centers).sum(-1)
        return -(target * logprobs).sum(-1), F.huber_loss(expected, position, reduction="sum")


def answer_logits(
    model: MoltcModel, batch: Batch, *, full_text: bool
) -> Iterator[tuple[PairGroup, Tensor]]:
    """Compute the logits of each group's answers; see `group_logits`.

    Args:
        model: Model to evaluate.
        batch: Pairs with their prompts.
        full_text: Whether to compute all answer tokens; otherwise only the first one.

    Yields:
        Group and its logits, ``[G, A, V]`` float32; A is 1 without ``full_text``.
    """
    tokens = model.encode_molecules(batch.molecules, batch.projector, batch.molecule_index)
    for group in batch.groups:
        embeds = model.merge_molecule_tokens(group.input_ids, tokens[group.occurrences])
        yield group, group_logits(model, group, embeds, full_text=full_text)


def group_logits(model: MoltcModel, group: PairGroup, embeds: Tensor, *, full_text: bool) -> Tensor:
    """Compute the logits of a group's answers.

    Padding is on the right, where causal attention does not see it, so no mask is needed.

    Args:
        model: Model to evaluate.
        group: Pairs with their prompts.
        embeds: ``[G, T, H]`` embedded prompts and answers.
        full_text: Whether to compute all answer tokens; otherwise only the first one.

    Returns:
        ``[G, A, V]`` float32; A is 1 without ``full_text``.
    """
    language: Any = model.language_model
    count = group.labels.shape[1] if full_text else 1
    first, last = int(group.answer_start.min()), int(group.answer_start.max())
    positions = torch.arange(first, last + count, device=embeds.device)
    logits: Tensor = language(
        inputs_embeds=embeds, use_cache=False, logits_to_keep=positions
    ).logits.float()
    if first != last:
        offsets = (group.answer_start - first)[:, None] + torch.arange(count)
        rows = torch.arange(len(offsets), device=logits.device)[:, None]
        logits = logits[rows, offsets.to(logits.device)]
    if model.config.mask_molecule_token:  # an answer never contains the placeholder
        logits[..., model.config.molecule_token_id] = float("-inf")
    return logits


def first_hidden_states(model: MoltcModel, group: PairGroup, embeds: Tensor) -> Tensor:
    """Compute the hidden states that predict the first answer tokens; ``[G, D]``.

    Args:
        model: Model to evaluate.
        group: Pairs with their prompts.
        embeds: ``[G, T, H]`` embedded prompts.
    """
    language: Any = model.language_model
    if hasattr(language, "get_base_model"):  # LoRA layers are inside the base model
        language = language.get_base_model()
    decoder: Any = getattr(language, language.base_model_prefix)
    states: Tensor = decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state
    rows = torch.arange(len(states), device=states.device)
    return states[rows, group.answer_start.to(states.device)]


def label_tokens(task: Task, tokenizer: MoltcTokenizer) -> list[int] | None:
    """Return the first token of each label's text.

    ``None`` if the task has no labels, or if two of them share it.
    """
    if not isinstance(task.kind, Choice):
        return None
    tokens = [
        tokenizer.encode(label.text, add_special_tokens=False)[0] for label in task.kind.labels
    ]
    return tokens if len(set(tokens)) == len(tokens) else None
