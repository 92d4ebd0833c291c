"""The shared encoder cache: several engines encode each molecule only once."""

import subprocess
import sys
import threading
import time

import pytest
import torch

from moltc_vllm.plugin.modality.shared_encoder_cache import SharedEncoderCache

WEIGHTS = {"w": torch.arange(4.0)}
CPU = torch.device("cpu")


def open_cache(folder, weights=WEIGHTS, capacity_mb=10, **options):
    cache = SharedEncoderCache(folder, capacity_mb, **options)
    cache.set_weights(weights)
    return cache


def tokens_of(number, dtype=torch.float32):
    return torch.full((8, 4), number + 0.5, dtype=dtype)


class RecordingEngine:
    """Engine that records the molecules of each encoding."""

    def __init__(self, cache, dtype=torch.float32, encoding_s=0.0):
        self.cache, self.dtype, self.encoding_s = cache, dtype, encoding_s
        self.encoded = []

    def get(self, numbers):
        """Get molecules from the cache and check their tokens."""

        def encode(indices):
            time.sleep(self.encoding_s)
            self.encoded.append([numbers[index] for index in indices])
            return torch.stack([tokens_of(numbers[index], self.dtype) for index in indices])

        molecules = [(number, -number) for number in numbers]
        tokens = self.cache.get_or_encode(molecules, encode, CPU)
        assert tokens.dtype == self.dtype
        expected = torch.stack([tokens_of(number, self.dtype) for number in numbers])
        assert torch.equal(tokens, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_engine_reads_molecules_that_another_encoded(tmp_path, dtype):
    first, second = (RecordingEngine(open_cache(tmp_path / "shared"), dtype) for _ in range(2))
    first.get([1, 2, 3])
    second.get([3, 4, 1])
    first.get([4, 2])
    assert first.encoded == [[1, 2, 3]]
    assert second.encoded == [[4]]


def test_engine_waits_for_claimed_molecules(tmp_path):
    first = RecordingEngine(open_cache(tmp_path / "shared", claim_timeout_s=30), encoding_s=0.5)
    second = RecordingEngine(open_cache(tmp_path / "shared", claim_timeout_s=30))
    thread = threading.Thread(target=first.get, args=([1, 2],))
    thread.start()
    time.sleep(0.2)  # until the first engine has claimed them
    second.get([0, 2, 1])
    thread.join()
    assert first.encoded == [[1, 2]]
    assert second.encoded == [[0]]


def test_engine_takes_over_claims_of_dead_process(tmp_path):
    code = (
        "import os, sys, torch\n"
        "from moltc_vllm.plugin.modality.shared_encoder_cache import SharedEncoderCache\n"
        "cache = SharedEncoderCache(sys.argv[1], 10)\n"
        "cache.set_weights({'w': torch.arange(4.0)})\n"
        "die = lambda indices: os.kill(os.getpid(), 9)\n"
        "cache.get_or_encode([(1, -1)], die, torch.device('cpu'))\n"
    )
    folder = tmp_path / "shared"
    process = subprocess.run([sys.executable, "-c", code, str(folder)])
    assert process.returncode == -9
    engine = RecordingEngine(open_cache(folder, claim_timeout_s=0.3))
    started_at = time.monotonic()
    engine.get([2, 1])
    engine.get([1])
    assert time.monotonic() - started_at < 2
    assert sorted(number for batch in engine.encoded for number in batch) == [1, 2]


def test_entries_of_other_weights_are_not_used(tmp_path):
    first = RecordingEngine(open_cache(tmp_path / "shared"))
    second = RecordingEngine(open_cache(tmp_path / "shared", {"w": torch.arange(4.0) + 1}))
    first.get([1])
    second.get([1])
    assert second.encoded == [[1]]


def test_full_cache_drops_all_entries(tmp_path):
    cache = open_cache(tmp_path / "shared", capacity_mb=16)
    tokens = torch.zeros(8, 768)  # as large as the published encoder's: overflow pages in LMDB
    encoded_counts = []

    def encode(indices):
        encoded_counts.append(len(indices))
        return tokens.expand(len(indices), -1, -1)

    def get(start, count):
        molecules = [(number, 0) for number in range(start, start + count)]
        return cache.get_or_encode(molecules, encode, CPU)

    for start in range(0, 4_000, 40):  # 100 MB
        assert get(start, 40).shape == (40, 8, 768)
    assert sum(encoded_counts) == 4_000
    get(0, 40)
    get(0, 40)
    assert encoded_counts[-1] == 40
    assert sum(encoded_counts) == 4_040  # the second call found all of them
    assert (tmp_path / "shared" / "data.mdb").stat().st_size < 22e6


def test_engine_encodes_without_cache_if_file_cannot_be_written(tmp_path):
    import lmdb

    cache = open_cache(tmp_path / "shared")

    class BrokenEnvironment:
        def begin(self, write=False):
            raise lmdb.DiskError("no space left")

    cache._environment = BrokenEnvironment()
    engine = RecordingEngine(cache)
    engine.get([1, 2])
    engine.get([2])
    assert engine.encoded == [[1, 2], [2]]


def test_path_of_a_file_is_rejected(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        SharedEncoderCache(tmp_path / "file", 1)
