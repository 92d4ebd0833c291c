"""The tokens of a number's intervals, and what a distribution over them says of the number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moltc_vllm.tasks import Number, Task

LIKELIEST = 20
"""So many of the likeliest first tokens are looked at: as many as vLLM tells by default."""


class TokenCandidate(NamedTuple):
    """A token that could have been the first one of an answer."""

    token: int
    logprob: float


@dataclass(frozen=True, slots=True)
class IntervalVocabulary:
    """The intervals of a number, each of which is one token.

    A position counts intervals: that of a value in the middle of the first one is 0.5. The mean is
    taken of positions, so that of intervals which grow it is not the largest ones' alone.

    Attributes:
        kind: The answer's form.
        tokens: ``[K]`` int64, the token of each interval, rising.
        places: Which interval a token is.
    """

    kind: Number
    tokens: Tensor
    places: dict[int, int]

    def positions(self, values: Tensor) -> Tensor:
        """Where values are, counted in intervals; ``[B]`` in and out, float32."""
        found = [self.kind.position(value) for value in values.tolist()]
        return torch.tensor(found, dtype=torch.float32, device=values.device)

    def expected(self, logits: Tensor) -> npt.NDArray[np.float64]:
        """The values at the mean positions of whole distributions.

        Args:
            logits: ``[B, V]`` of the answers' first tokens.

        Returns:
            ``[B]`` in the unit of the answer.
        """
        weights = logits[:, self.tokens].double().softmax(-1).cpu().numpy()
        positions = weights @ (np.arange(len(self.tokens)) + 0.5)
        return np.array([self.kind.value_at(float(position)) for position in positions])

    def mean(self, likely: Sequence[TokenCandidate]) -> float | None:
        """The value at the mean position of the likeliest tokens; ``None`` if none is an interval.

        Rounded to the digits of a written value.
        """
        total = weighted = 0.0
        for token, logprob in likely:
            place = self.places.get(token)
            if place is not None:
                chance = math.exp(logprob)
                total += chance
                weighted += chance * (place + 0.5)
        if not total:
            return None
        return round(self.kind.value_at(weighted / total), self.kind.decimals) + 0.0


def interval_vocabulary(task: Task, tokenizer: Any) -> IntervalVocabulary | None:
    """A task's scale; ``None`` if it is no number, or an interval is more than one token."""
    return _scale(task.kind, tokenizer) if isinstance(task.kind, Number) else None


@lru_cache(maxsize=256)  # encoding hundreds of intervals takes milliseconds
def _scale(kind: Number, tokenizer: Any) -> IntervalVocabulary | None:
    tokens = []
    for lower, upper in kind.intervals():
        middle = kind.write((lower + min(upper, kind.bounds[1])) / 2)
        first, *_ = tokenizer.encode(middle, add_special_tokens=False)
        if tokenizer.decode([first]) != kind.interval_text(lower, upper):
            return None
        tokens.append(first)
    places = {token: place for place, token in enumerate(tokens)}
    return IntervalVocabulary(kind, torch.tensor(tokens), places)
