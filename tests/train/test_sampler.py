"""Sampler of pairs: each pair once per epoch, few molecules at a time, a function of the seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.train.sampler import PairBlockSampler, process_slices, step_rng

DRUGS = 60
PAIRS = np.array(
    [(a, b) for a in range(DRUGS) for b in range(a + 1, DRUGS) if (a * 7 + b) % 3 == 0], np.int32
)


def epoch(name="drugs", block=None, seed=0):
    return PairBlockSampler(name, PAIRS, block, seed).indices(0, len(PAIRS)).tolist()


@pytest.mark.parametrize("block", [None, (8, 8), (8, 0), (0, 5)])
@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 3000), count=st.integers(0, 1500))
def test_indices_do_not_depend_on_earlier_calls(block, start, count):
    whole = PairBlockSampler("drugs", PAIRS, block, seed=3).indices(0, start + count)
    piece = PairBlockSampler("drugs", PAIRS, block, seed=3).indices(start, count)
    assert piece.tolist() == whole[start:].tolist()


@pytest.mark.parametrize("block", [None, (8, 8), (8, 0)])
def test_epoch_has_every_pair_once_in_new_order(block):
    sampler = PairBlockSampler("drugs", PAIRS, block, seed=0)
    first = sampler.indices(0, len(PAIRS)).tolist()
    second = sampler.indices(len(PAIRS), len(PAIRS)).tolist()
    assert sorted(first) == sorted(second) == list(range(len(PAIRS)))
    assert first != second


@pytest.mark.parametrize("block", [None, (8, 8), (8, 0)])
def test_order_depends_on_seed_and_name(block):
    assert epoch(block=block) == epoch(block=block)
    assert epoch(block=block) != epoch(block=block, seed=1)
    assert epoch(block=block) != epoch("others", block=block)


def test_blocks_have_few_molecules():
    def molecules_per_piece(block):
        pairs = PAIRS[PairBlockSampler("drugs", PAIRS, block, seed=0).indices(0, 600)]
        return np.mean([len(np.unique(pairs[start : start + 20])) for start in range(0, 600, 20)])

    assert molecules_per_piece((8, 8)) < 0.8 * molecules_per_piece(None)


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_process_slices_cover_every_pair_once(processes):
    counts = [5, 1, 16]
    for index, count in enumerate(counts):
        parts = [
            range(count)[process_slices(counts, process, processes)[index]]
            for process in range(processes)
        ]
        assert [pair for part in parts for pair in part] == list(range(count))


def test_step_rng_depends_on_seed_name_and_step():
    drawn = {
        step_rng(seed, name, step).random() for seed in (0, 1) for name in "ab" for step in (0, 1)
    }
    assert len(drawn) == 8
    assert step_rng(0, "a", 0).random() == step_rng(0, "a", 0).random()


def test_data_set_without_pairs_is_refused_by_name():
    empty = PairBlockSampler("freesolv", np.zeros((0, 2), np.int32), None, seed=0)
    with pytest.raises(ValueError, match="freesolv has no pairs"):
        empty.indices(0, 1)
