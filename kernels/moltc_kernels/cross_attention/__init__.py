"""Attention of a few queries over each molecule's own atoms."""

from __future__ import annotations

from torch import Tensor

from moltc_kernels.cross_attention import cpu, naive
from moltc_kernels.cross_attention.naive import KeyValue
from moltc_kernels.dispatch import backend_for

__all__ = ["KeyValue", "cross_attention"]


def cross_attention(query: Tensor, tokens: Tensor, offsets: Tensor, layers: KeyValue) -> Tensor:
    """Ragged cross-attention; contract in `moltc_kernels.cross_attention.naive.cross_attention`."""
    match backend_for(query, tokens, *layers):
        case "naive":
            return naive.cross_attention(query, tokens, offsets, layers)
        case "cpu":
            return cpu.cross_attention(query, tokens, offsets, layers)
        case "triton":
            from moltc_kernels.cross_attention import triton

            return triton.cross_attention(query, tokens, offsets, layers)
