"""Interval tokens of numeric tasks, and the value expected under a distribution over them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moltc_vllm.models.token_candidate import TokenCandidate
from moltc_vllm.tasks import Number, Task

NUM_CANDIDATES = 20
"""Number of the most probable first tokens that a value is averaged over.

vLLM returns at most this many log-probabilities per token by default (``--max-logprobs``).
"""


@dataclass(frozen=True, slots=True)
class IntervalVocabulary:
    """Tokens of a numeric task's intervals, one for each interval.

    Means are taken over positions, which count intervals: a value in the middle of the first
    interval is at 0.5. With intervals of growing width, a mean over values would be dominated by
    the widest intervals.

    Attributes:
        kind: Form of the task's answers.
        token_ids: ``[K]`` int64, token of each interval, from the lowest interval to the highest.
        index_of: Index of the interval that each token stands for.
    """

    kind: Number
    token_ids: Tensor
    index_of: dict[int, int]

    def positions(self, values: Tensor) -> Tensor:
        """Convert values to positions; ``[B]`` to ``[B]`` float32."""
        positions = [self.kind.position(value) for value in values.tolist()]
        return torch.tensor(positions, dtype=torch.float32, device=values.device)

    def expected_values(self, logits: Tensor) -> npt.NDArray[np.float64]:
        """Compute the value at the mean position of each distribution over all intervals.

        Args:
            logits: ``[B, V]`` logits of the answers' first tokens.

        Returns:
            ``[B]`` float64, in the task's unit.
        """
        weights = logits[:, self.token_ids].double().softmax(-1).cpu().numpy()  # [B, K]
        positions = weights @ (np.arange(len(self.token_ids)) + 0.5)
        return np.array([self.kind.value_at(float(position)) for position in positions])

    def mean_value(self, candidates: Sequence[TokenCandidate]) -> float | None:
        """Compute the value at the mean position of the most probable tokens.

        Args:
            candidates: Most probable first tokens; those that are not intervals are ignored.

        Returns:
            The value, rounded to the digits of a written value; ``None`` if no candidate is one.
        """
        total = weighted = 0.0
        for token, logprob in candidates:
            index = self.index_of.get(token)
            if index is not None:
                probability = math.exp(logprob)
                total += probability
                weighted += probability * (index + 0.5)
        if not total:
            return None
        # Adding zero turns -0.0 into 0.0.
        return round(self.kind.value_at(weighted / total), self.kind.decimals) + 0.0


def interval_vocabulary(task: Task, tokenizer: Any) -> IntervalVocabulary | None:
    """Look up the interval tokens of a task.

    Args:
        task: Task of any kind.
        tokenizer: Tokenizer of the checkpoint.

    Returns:
        The vocabulary; ``None`` if the task is not numeric, or if the tokenizer needs more than one
        token for some interval.
    """
    return _build(task.kind, tokenizer) if isinstance(task.kind, Number) else None


@lru_cache(maxsize=256)  # tokenizing hundreds of intervals takes milliseconds
def _build(kind: Number, tokenizer: Any) -> IntervalVocabulary | None:
    token_ids = []
    for lower, upper in kind.intervals():
        middle = kind.write((lower + min(upper, kind.bounds[1])) / 2)
        first, *_ = tokenizer.encode(middle, add_special_tokens=False)
        if tokenizer.decode([first]) != kind.interval_text(lower, upper):
            return None
        token_ids.append(first)
    index_of = {token: index for index, token in enumerate(token_ids)}
    return IntervalVocabulary(kind, torch.tensor(token_ids), index_of)
