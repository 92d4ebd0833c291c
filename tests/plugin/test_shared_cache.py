"""Engines side by side: each molecule is encoded by one of them."""

import subprocess
import sys
import threading
import time

import pytest
import torch

from moltc_vllm.plugin.modality.shared_encoder_cache import SharedEncoderCache

WEIGHTS = {"w": torch.arange(4.0)}
CPU = torch.device("cpu")


def opened(folder, weights=WEIGHTS, capacity_mb=10, **options):
    cache = SharedEncoderCache(folder, capacity_mb, **options)
    cache.use(weights)
    return cache


def tokens_of(number, dtype=torch.float32):
    return torch.full((8, 4), number + 0.5, dtype=dtype)


class Engine:
    """Counts what it has to encode."""

    def __init__(self, cache, dtype=torch.float32, takes_s=0.0):
        self.cache, self.dtype, self.takes_s = cache, dtype, takes_s
        self.encoded = []

    def fetch(self, numbers):
        def encode(places):
            time.sleep(self.takes_s)
            self.encoded.append([numbers[place] for place in places])
            return torch.stack([tokens_of(numbers[place], self.dtype) for place in places])

        got = self.cache.fetch([(number, -number) for number in numbers], encode, CPU)
        assert got.dtype == self.dtype
        assert torch.equal(got, torch.stack([tokens_of(one, self.dtype) for one in numbers]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_one_has_encoded_the_other_reads(tmp_path, dtype):
    first, second = (Engine(opened(tmp_path / "shared"), dtype) for _ in range(2))
    first.fetch([1, 2, 3])
    second.fetch([3, 4, 1])
    first.fetch([4, 2])
    assert first.encoded == [[1, 2, 3]]
    assert second.encoded == [[4]]


def test_what_is_being_encoded_is_waited_for(tmp_path):
    first = Engine(opened(tmp_path / "shared", patience_s=30), takes_s=0.5)
    second = Engine(opened(tmp_path / "shared", patience_s=30))
    thread = threading.Thread(target=first.fetch, args=([1, 2],))
    thread.start()
    time.sleep(0.2)  # it has claimed them
    second.fetch([0, 2, 1])
    thread.join()
    assert first.encoded == [[1, 2]]
    assert second.encoded == [[0]]


def test_who_dies_is_not_waited_for_long(tmp_path):
    code = (
        "import os, sys, torch\n"
        "from moltc_vllm.plugin.modality.shared_encoder_cache import SharedEncoderCache\n"
        "cache = SharedEncoderCache(sys.argv[1], 10)\n"
        "cache.use({'w': torch.arange(4.0)})\n"
        "cache.fetch([(1, -1)], lambda places: os.kill(os.getpid(), 9), torch.device('cpu'))\n"
    )
    folder = tmp_path / "shared"
    died = subprocess.run([sys.executable, "-c", code, str(folder)])
    assert died.returncode == -9
    engine = Engine(opened(folder, patience_s=0.3))
    begin = time.monotonic()
    engine.fetch([2, 1])
    engine.fetch([1])
    assert time.monotonic() - begin < 2
    assert sorted(one for batch in engine.encoded for one in batch) == [1, 2]


def test_other_weights_are_others(tmp_path):
    first = Engine(opened(tmp_path / "shared"))
    second = Engine(opened(tmp_path / "shared", {"w": torch.arange(4.0) + 1}))
    first.fetch([1])
    second.fetch([1])
    assert second.encoded == [[1]]


def test_when_it_is_full_it_begins_anew(tmp_path):
    cache = opened(tmp_path / "shared", capacity_mb=16)
    big = torch.zeros(8, 768)  # of the published encoder: in pages of its own
    asked = []

    def encode(names):
        asked.append(len(names))
        return big.expand(len(names), -1, -1)

    def fetch(start, count):
        names = [(number, 0) for number in range(start, start + count)]
        return cache.fetch(names, lambda places: encode([names[one] for one in places]), CPU)

    for start in range(0, 4_000, 40):  # 100 MB
        assert fetch(start, 40).shape == (40, 8, 768)
    assert sum(asked) == 4_000
    fetch(0, 40)
    fetch(0, 40)
    assert asked[-1] == 40
    assert sum(asked) == 4_040  # the first time only
    assert (tmp_path / "shared" / "data.mdb").stat().st_size < 22e6


def test_a_file_that_cannot_be_written_is_no_cache_but_no_error(tmp_path):
    import lmdb

    cache = opened(tmp_path / "shared")

    class Broken:
        def begin(self, write=False):
            raise lmdb.DiskError("no space left")

    cache._file = Broken()
    engine = Engine(cache)
    engine.fetch([1, 2])
    engine.fetch([2])
    assert engine.encoded == [[1, 2], [2]]


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        SharedEncoderCache(tmp_path / "file", 1)
