"""Results of comparing this package with recorded outputs of the published code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from tests.golden.fixture import Record

TIE_TOLERANCE = 1e-4
"""Tokens whose reference logits are closer than this may be ranked in either order."""

TOP = 20
"""Number of most probable first tokens to compare."""


@dataclass
class Comparison:
    """Number of equal results, with the reasons for differences."""

    equal: int = 0
    total: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, equal: bool, reason: str) -> None:
        self.total += 1
        self.equal += equal
        if not equal:
            self.reasons.append(reason)

    def __str__(self) -> str:
        return f"{self.equal} of {self.total} equal" + "".join(
            f"\n    {reason}" for reason in self.reasons
        )


@dataclass
class FirstTokenComparison:
    """Comparison of the distributions of the first token."""

    top_equal: Comparison = field(default_factory=Comparison)
    ties: list[str] = field(default_factory=list)
    largest_difference: float = 0.0

    def add(
        self, record: Record, actual: Sequence[tuple[int, float]], expected: torch.Tensor
    ) -> None:
        """Compare the most probable tokens, best first, with their log-probabilities."""
        expected_ids = [token for token, _ in record.top20]
        ids = [token for token, _ in actual[: len(expected_ids)]]
        changed = [(a, b) for a, b in zip(ids, expected_ids, strict=True) if a != b]
        gap = max((abs(float(expected[a] - expected[b])) for a, b in changed), default=0.0)
        self.top_equal.add(gap < TIE_TOLERANCE, f"{record.id}: {ids} instead of {expected_ids}")
        if changed and gap < TIE_TOLERANCE:
            self.ties.append(f"{record.id}: {changed[0]} are swapped, {gap:.1e} apart")
        logprobs = dict(actual)
        missing = [token for token in expected_ids if token not in logprobs]
        differences = [
            abs(logprobs[token] - float(expected[token]))
            for token in expected_ids
            if token in logprobs
        ]
        self.largest_difference = max(
            [self.largest_difference, *differences, *[float("inf")] * bool(missing)]
        )

    def __str__(self) -> str:
        notes = "".join(f"\n    {tie}" for tie in self.ties)
        difference = f"{self.largest_difference:.1e}"
        return f"top {TOP}: {self.top_equal}; log-probabilities within {difference}{notes}"
