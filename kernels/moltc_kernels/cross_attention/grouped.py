"""The naive form for molecules of about one size at a time: for training on CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.cross_attention.naive import KeyValue, check_shapes, cross_attention

_SMALLEST = 16
"""Molecules of up to so many tokens are one group; the next ones reach twice as far each."""


def by_size(query: Tensor, tokens: Tensor, offsets: Tensor, layers: KeyValue) -> Tensor:
    """As `moltc_kernels.cross_attention.naive.cross_attention`; differentiable.

    That one pads every molecule to the size of the largest.
    """
    check_shapes(query, tokens, offsets, layers)
    begin, sizes = offsets[:-1].long(), offsets.diff().long()
    group = (sizes.clamp(min=_SMALLEST) - 1).double().log2().floor()
    groups = group.unique().tolist()
    if len(groups) < 2:
        return cross_attention(query, tokens, offsets, layers)
    found, order = [], []
    for number in groups:
        molecules = (group == number).nonzero().flatten()
        own = sizes[molecules]
        ends = own.cumsum(0)
        first = torch.repeat_interleave(begin[molecules] - ends + own, own)
        rows = torch.arange(len(first), device=first.device) + first
        found.append(
            cross_attention(
                query.index_select(0, molecules),
                tokens.index_select(0, rows),
                torch.cat([ends.new_zeros(1), ends]),
                layers,
            )
        )
        order.append(molecules)
    back = torch.cat(order).argsort()
    return torch.cat(found).index_select(0, back)
