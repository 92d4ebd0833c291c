"""Attention of a few queries over each molecule's own atoms."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.cross_attention import naive
from moltc_kernels.cross_attention.grouped import by_size
from moltc_kernels.cross_attention.naive import KeyValue
from moltc_kernels.dispatch import form

__all__ = ["KeyValue", "cross_attention"]


def cross_attention(query: Tensor, tokens: Tensor, offsets: Tensor, layers: KeyValue) -> Tensor:
    """Ragged cross-attention; contract in `moltc_kernels.cross_attention.naive.cross_attention`."""
    chosen = form(__name__, query, tokens, *layers)
    # A GPU would wait for the sizes longer than it pads.
    if chosen is naive and torch.is_grad_enabled() and not tokens.is_cuda:
        return by_size(query, tokens, offsets, layers)
    return chosen.cross_attention(query, tokens, offsets, layers)
