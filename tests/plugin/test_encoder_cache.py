"""Molecules are encoded once, whatever else is asked."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.plugin.modality.encoder_cache import EncoderCache


def tokens_of(molecule) -> torch.Tensor:
    return torch.full((8, 4), float(molecule[0]) + 0.5)


class Encoder:
    """Counts what it is asked for."""

    def __init__(self):
        self.calls = []

    def fetch(self, cache, numbers):
        molecules = [(number, 0) for number in numbers]

        def encode(places):
            self.calls.append([molecules[place][0] for place in places])
            return torch.stack([tokens_of(molecules[place]) for place in places])

        got = cache.fetch(molecules, encode)
        assert torch.equal(got, torch.stack([tokens_of(m) for m in molecules]))


def cache_for(molecules: int) -> EncoderCache:
    return EncoderCache(molecules * tokens_of((0, 0)).nbytes)


def test_each_molecule_is_encoded_once():
    cache, encoder = cache_for(10), Encoder()
    encoder.fetch(cache, [1, 2, 1])
    encoder.fetch(cache, [2, 3, 2, 1])
    encoder.fetch(cache, [3, 1])
    assert encoder.calls == [[1, 2], [3]]


def test_the_least_recently_used_goes_first():
    cache, encoder = cache_for(3), Encoder()
    encoder.fetch(cache, [1, 2, 3])
    encoder.fetch(cache, [1])
    encoder.fetch(cache, [4])  # in place of 2
    encoder.fetch(cache, [1, 3, 4])
    assert len(encoder.calls) == 2
    encoder.fetch(cache, [2])
    assert encoder.calls[-1] == [2]
    assert len(cache) == 3


def test_clear_forgets_everything():
    cache, encoder = cache_for(3), Encoder()
    encoder.fetch(cache, [1])
    cache.clear()
    encoder.fetch(cache, [1])
    assert encoder.calls == [[1], [1]]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5), st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), max_size=9))
def test_answers_are_right_whatever_fits(capacity, batches):
    cache, encoder = cache_for(capacity), Encoder()
    for batch in batches:
        encoder.fetch(cache, batch)
        assert len(cache) <= capacity


@pytest.mark.parametrize("capacity_bytes", [0, 1])
def test_a_cache_too_small_for_one_molecule_keeps_one(capacity_bytes):
    cache, encoder = EncoderCache(capacity_bytes), Encoder()
    encoder.fetch(cache, [1, 2])
    encoder.fetch(cache, [2])
    assert encoder.calls == [[1, 2]]
