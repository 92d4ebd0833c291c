"""Ragged cross-attention on CPU: the absorbed form, in groups of molecules of equal size."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.cross_attention.absorbed import absorb_query, project_context
from moltc_kernels.cross_attention.naive import KeyValue, check_shapes


def cross_attention(query: Tensor, tokens: Tensor, offsets: Tensor, layers: KeyValue) -> Tensor:
    """As `moltc_kernels.cross_attention.naive.cross_attention`; not differentiable.

    No keys, no values, no padding: all queries and heads of a molecule are rows that read its
    tokens directly, and molecules with as many tokens are one batched product.
    """
    check_shapes(query, tokens, offsets, layers)
    rows = absorb_query(query, layers.key_weight)  # B x R x width
    context = torch.empty_like(rows)
    sizes = offsets.diff()
    for size in sizes.unique().tolist():
        molecules = (sizes == size).nonzero().flatten()
        own = offsets[molecules, None] + torch.arange(size)  # b x n
        x = tokens[own]  # b x n x width
        scores = rows[molecules] @ x.transpose(1, 2)  # b x R x n
        if scores.dtype.itemsize < 4:
            scores = scores.float()
        context[molecules] = scores.softmax(-1).to(x.dtype) @ x
    return project_context(context, layers, query.shape)
