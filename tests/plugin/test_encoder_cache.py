"""The encoder cache encodes each molecule once and evicts the least recently used."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.plugin.modality.encoder_cache import EncoderCache


def tokens_of(molecule) -> torch.Tensor:
    return torch.full((8, 4), float(molecule[0]) + 0.5)


class RecordingEncoder:
    """Encoder that records the molecules of each call."""

    def __init__(self):
        self.calls = []

    def get(self, cache, numbers):
        """Get molecules from the cache and check their tokens."""
        molecules = [(number, 0) for number in numbers]

        def encode(indices):
            self.calls.append([numbers[index] for index in indices])
            return torch.stack([tokens_of(molecules[index]) for index in indices])

        tokens = cache.get_or_encode(molecules, encode)
        assert torch.equal(tokens, torch.stack([tokens_of(molecule) for molecule in molecules]))


def cache_for(molecules: int) -> EncoderCache:
    return EncoderCache(molecules * tokens_of((0, 0)).nbytes)


def test_cache_encodes_each_molecule_once():
    cache, encoder = cache_for(10), RecordingEncoder()
    encoder.get(cache, [1, 2, 1])
    encoder.get(cache, [2, 3, 2, 1])
    encoder.get(cache, [3, 1])
    assert encoder.calls == [[1, 2], [3]]


def test_cache_evicts_least_recently_used_molecule():
    cache, encoder = cache_for(3), RecordingEncoder()
    encoder.get(cache, [1, 2, 3])
    encoder.get(cache, [1])
    encoder.get(cache, [4])  # evicts 2
    encoder.get(cache, [1, 3, 4])
    assert len(encoder.calls) == 2
    encoder.get(cache, [2])
    assert encoder.calls[-1] == [2]
    assert len(cache) == 3


def test_clear_evicts_all_molecules():
    cache, encoder = cache_for(3), RecordingEncoder()
    encoder.get(cache, [1])
    cache.clear()
    encoder.get(cache, [1])
    assert encoder.calls == [[1], [1]]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5), st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), max_size=9))
def test_cache_returns_correct_tokens_at_any_capacity(capacity, batches):
    cache, encoder = cache_for(capacity), RecordingEncoder()
    for batch in batches:
        encoder.get(cache, batch)
        assert len(cache) <= capacity


@pytest.mark.parametrize("capacity_bytes", [0, 1])
def test_cache_too_small_for_one_molecule_keeps_one(capacity_bytes):
    cache, encoder = EncoderCache(capacity_bytes), RecordingEncoder()
    encoder.get(cache, [1, 2])
    encoder.get(cache, [2])
    assert encoder.calls == [[1, 2]]
