"""Ragged cross-attention on CPU: the absorbed form, in groups of about one size."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.cross_attention.absorbed import absorb_query, project_context
from moltc_kernels.cross_attention.naive import KeyValue, check_shapes

# Molecules are read together with others of about their size: a few large products instead of two
# small ones each, which threads would spend their time waiting for.
_STEP = 8


def cross_attention(query: Tensor, tokens: Tensor, offsets: Tensor, layers: KeyValue) -> Tensor:
    """As `moltc_kernels.cross_attention.naive.cross_attention`; not differentiable.

    No keys and no values: all queries and heads of a molecule are rows that read its tokens
    directly. Padding is less than 8 tokens a molecule.
    """
    check_shapes(query, tokens, offsets, layers)
    rows = absorb_query(query, layers.key_weight)  # B x R x width
    context = torch.empty(rows.shape, dtype=rows.dtype)
    begin, sizes = offsets[:-1, None].long(), offsets.diff()[:, None]
    padded = (sizes[:, 0] + _STEP - 1) // _STEP * _STEP
    for length in padded.unique().tolist():
        molecules = (padded == length).nonzero().flatten()
        column = torch.arange(length)
        padding = column >= sizes[molecules]  # b x n
        x = tokens[(begin[molecules] + column).clamp_max_(tokens.shape[0] - 1)]  # b x n x width
        x.masked_fill_(padding[..., None], 0)  # another molecule's tokens may be inf
        scores = torch.bmm(rows[molecules], x.transpose(1, 2)).float()  # b x R x n
        weights = scores.masked_fill_(padding[:, None], float("-inf")).softmax(-1)
        context[molecules] = torch.bmm(weights.to(x.dtype), x)
    return project_context(context, layers, query.shape)
