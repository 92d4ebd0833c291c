"""Interval tokens of numeric tasks, and the value expected under a distribution over them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moltc_vllm.models.token_candidate import TokenCandidates
from moltc_vllm.tasks import Number, Task

NUM_CANDIDATES = 20
"""Number of the most probable first tokens that a value of a checkpoint without calibration is
averaged over. Values of a calibrated task are averaged over all intervals.
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
        index_by_token: The same as an array over token ids; -1 for other tokens, and at its end for
            all larger ids.
    """

    kind: Number
    token_ids: Tensor
    index_of: dict[int, int]
    index_by_token: npt.NDArray[np.int64]

    def positions(self, values: Tensor) -> Tensor:
        """Convert values to positions; ``[B]`` to ``[B]`` float32."""
        ends = torch.tensor(self.kind.interval_ends(), dtype=torch.float64, device=values.device)
        values = values.double()
        index = torch.searchsorted(ends, values, right=True) - 1
        index = index.clamp_(0, len(ends) - 2)
        return (index + (values - ends[index]) / ends.diff()[index]).float()

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

    def log_probabilities(self, candidates: TokenCandidates) -> npt.NDArray[np.float64] | None:
        """Look up the log-probability of each interval among the most probable tokens.

        Args:
            candidates: Most probable first tokens; those that are not intervals are ignored.

        Returns:
            ``[K]``, minus infinity for intervals that are not among them; ``None`` if none is.
        """
        token_ids = np.asarray(candidates.token_ids, dtype=np.int64)
        indices = self.index_by_token[np.minimum(token_ids, len(self.index_by_token) - 1)]
        found = indices >= 0
        if not found.any():
            return None
        result = np.full(len(self.token_ids), -np.inf)
        result[indices[found]] = np.asarray(candidates.logprobs, dtype=np.float64)[found]
        return result

    def mean_value(self, log_probabilities: npt.NDArray[np.float64]) -> float:
        """Compute the value at the mean position of a distribution.

        Args:
            log_probabilities: ``[K]`` log-probabilities of the intervals, up to a summand.

        Returns:
            The value, rounded to the digits of a written value.
        """
        weights = np.exp(log_probabilities - log_probabilities.max())
        position = weights @ (np.arange(len(weights)) + 0.5) / weights.sum()
        return self.kind.round(self.kind.value_at(float(position)))


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
    index_by_token = np.full(max(token_ids) + 2, -1)
    index_by_token[token_ids] = np.arange(len(token_ids))
    return IntervalVocabulary(kind, torch.tensor(token_ids), index_of, index_by_token)
