"""The order of pairs: each once per epoch, few molecules at a time, a function of the seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.train.sampler import PairBlockSampler, shares, step_rng

DRUGS = 60
PAIRS = np.array(
    [(a, b) for a in range(DRUGS) for b in range(a + 1, DRUGS) if (a * 7 + b) % 3 == 0], np.int32
)


@pytest.mark.parametrize("block", [None, (8, 8), (8, 0), (0, 5)])
@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 3000), count=st.integers(0, 1500))
def test_any_piece_can_be_taken_at_any_time(block, start, count):
    whole = PairBlockSampler("drugs", PAIRS, block, seed=3).take(0, start + count)
    piece = PairBlockSampler("drugs", PAIRS, block, seed=3).take(start, count)
    assert piece.tolist() == whole[start:].tolist()


@pytest.mark.parametrize("block", [None, (8, 8), (8, 0)])
def test_an_epoch_has_every_pair_once_and_the_next_one_another_order(block):
    order = PairBlockSampler("drugs", PAIRS, block, seed=0)
    first, second = order.take(0, len(PAIRS)), order.take(len(PAIRS), len(PAIRS))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(len(PAIRS)))
    assert first.tolist() != second.tolist()
    assert (
        first.tolist()
        != PairBlockSampler("drugs", PAIRS, block, seed=1).take(0, len(PAIRS)).tolist()
    )
    assert (
        first.tolist()
        != PairBlockSampler("others", PAIRS, block, seed=0).take(0, len(PAIRS)).tolist()
    )


def test_blocks_have_few_molecules():
    def molecules_in_pieces(block):
        taken = PAIRS[PairBlockSampler("drugs", PAIRS, block, seed=0).take(0, 600)]
        return np.mean([len(np.unique(taken[at : at + 20])) for at in range(0, 600, 20)])

    assert molecules_in_pieces((8, 8)) < 0.8 * molecules_in_pieces(None)


def test_processes_share_every_pair():
    counts = [5, 1, 16]
    for processes in (1, 2, 3, 7):
        for number, count in enumerate(counts):
            parts = [
                range(count)[shares(counts, one, processes)[number]] for one in range(processes)
            ]
            assert [pair for part in parts for pair in part] == list(range(count))


def test_steps_have_random_numbers_of_their_own():
    drawn = {
        step_rng(seed, name, step).random() for seed in (0, 1) for name in "ab" for step in (0, 1)
    }
    assert len(drawn) == 8
    assert step_rng(0, "a", 0).random() == step_rng(0, "a", 0).random()
