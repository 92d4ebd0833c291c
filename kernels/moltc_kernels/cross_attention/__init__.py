"""Attention of a few queries over each molecule's own atoms."""

from __future__ import annotations

from torch import Tensor

from moltc_kernels.cross_attention.naive import KeyValue
from moltc_kernels.dispatch import form

__all__ = ["KeyValue", "cross_attention"]


def cross_attention(query: Tensor, tokens: Tensor, offsets: Tensor, layers: KeyValue) -> Tensor:
    """Ragged cross-attention; contract in `moltc_kernels.cross_attention.naive.cross_attention`."""
    return form(__name__, query, tokens, *layers).cross_attention(query, tokens, offsets, layers)
