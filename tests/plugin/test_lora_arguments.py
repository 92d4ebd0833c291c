"""Engine arguments for the adapters of a folder."""

import typing

import pytest

from moltc_vllm.models.adapters import AdapterError
from moltc_vllm.plugin.engine.lora_arguments import RANKS, ServedAdapter, lora_arguments


def test_largest_rank_is_rounded_up_to_one_that_vllm_allows():
    from vllm.config.lora import MaxLoRARanks

    assert typing.get_args(MaxLoRARanks) == RANKS
    for rank, allowed in ((1, 1), (2, 8), (8, 8), (9, 16), (257, 320), (512, 512)):
        adapter = ServedAdapter("m", None, rank)
        arguments = lora_arguments([adapter], on_cpu=False)
        assert arguments == {
            "enable_lora": True,
            "max_lora_rank": allowed,
            "max_loras": 1,
            "max_cpu_loras": 1,
        }


def test_rank_above_the_largest_is_rejected():
    with pytest.raises(AdapterError, match="'m' has rank 513, the largest that vLLM serves 512"):
        lora_arguments([ServedAdapter("m", None, 513)], on_cpu=False)
