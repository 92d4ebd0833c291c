"""Interval tokens: expected values over a numeric task's intervals."""

import pytest
import torch

from moltc_vllm.models.interval_tokens import interval_vocabulary
from moltc_vllm.models.phrase_tokens import phrase_vocabulary
from moltc_vllm.models.token_candidate import TokenCandidates
from moltc_vllm.models.tokenizer import train_tokenizer
from moltc_vllm.tasks import TASKS, get_task


@pytest.fixture(scope="module")
def corpus():
    return [text for task in TASKS.values() for text in task.examples()]


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return train_tokenizer(corpus, 1200, phrase_vocabulary(TASKS.values()))


def interval_token(tokenizer, name, value):
    return tokenizer.encode(get_task(name).write(value))[0]


def test_expected_value_is_mean_over_interval_tokens(tokenizer):
    intervals = interval_vocabulary(get_task("solvation"), tokenizer)
    token_ids = set(intervals.token_ids.tolist())
    assert len(intervals.token_ids) == len(intervals.kind.intervals()) == len(token_ids)
    logits = torch.full((2, len(tokenizer)), -30.0)
    for row, values in enumerate([(-4.2, -4.9), (3.1, 3.1)]):
        for value in values:
            logits[row, interval_token(tokenizer, "solvation", value)] = 0.0
    # Half the probability is in [-4.5, -4), half in [-5, -4.5): the mean is their common end.
    assert intervals.expected_values(logits) == pytest.approx([-4.5, 3.25], abs=1e-6)


def test_mean_value_ignores_other_tokens(tokenizer):
    intervals = interval_vocabulary(get_task("solvation"), tokenizer)
    tokens = [interval_token(tokenizer, "solvation", value) for value in (-4.2, -4.9)]
    last = len(tokenizer) - 1
    candidates = TokenCandidates([*tokens, tokens[0], 7, last], [-0.5, -0.5, -0.5, -0.1, -0.2])
    assert intervals.mean_value(intervals.log_probabilities(candidates)) == -4.5
    assert intervals.log_probabilities(TokenCandidates([7, last], [0.0, 0.0])) is None
    assert intervals.log_probabilities(TokenCandidates()) is None


def test_mean_value_of_growing_intervals_is_mean_position(tokenizer):
    """The middle of 1.5 ns and 1500 ns is in the decade of 50 ns, not at 750 ns."""
    intervals = interval_vocabulary(get_task("lifetime"), tokenizer)
    low, high = (interval_token(tokenizer, "lifetime", value) for value in (1.5, 1500.0))
    candidates = TokenCandidates([low, high], [-0.7, -0.7])
    mean = intervals.mean_value(intervals.log_probabilities(candidates))
    assert 30 < mean < 70


def test_tokenizer_without_interval_tokens_has_no_vocabulary(corpus):
    assert interval_vocabulary(get_task("solvation"), train_tokenizer(corpus, 1200)) is None
    assert interval_vocabulary(get_task("ddi"), train_tokenizer(corpus, 600)) is None
