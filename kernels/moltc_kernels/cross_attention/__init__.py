"""Cross-attention of each molecule's queries over that molecule's tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.cross_attention import naive
from moltc_kernels.cross_attention.grouped import grouped_cross_attention
from moltc_kernels.cross_attention.naive import KeyValue
from moltc_kernels.dispatch import select_implementation

__all__ = ["KeyValue", "cross_attention"]


def cross_attention(query: Tensor, tokens: Tensor, offsets: Tensor, layers: KeyValue) -> Tensor:
    """Attend to a ragged batch; see `moltc_kernels.cross_attention.naive.cross_attention`."""
    implementation = select_implementation(__name__, query, tokens, *layers)
    # Grouping reads the sizes on the host. On a GPU that synchronization costs more than padding.
    if implementation is naive and torch.is_grad_enabled() and not tokens.is_cuda:
        return grouped_cross_attention(query, tokens, offsets, layers)
    return implementation.cross_attention(query, tokens, offsets, layers)
