"""Ragged cross-attention on CPU, absorbed and in groups of molecules of similar size."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.cross_attention.absorbed import absorb_query, project_context
from moltc_kernels.cross_attention.naive import KeyValue, check_shapes

# Sizes are rounded up to a multiple of this, and molecules of the same rounded size are processed
# together: a few large matrix products use threads better than two small ones per molecule.
_SIZE_MULTIPLE = 8


def cross_attention(query: Tensor, tokens: Tensor, offsets: Tensor, layers: KeyValue) -> Tensor:
    """Compute `moltc_kernels.cross_attention.naive.cross_attention` without keys and values.

    All queries and heads of a molecule are rows that attend to its tokens directly
    (`moltc_kernels.cross_attention.absorbed`). A molecule is padded by at most 7 tokens. The
    softmax is float32. Not differentiable.
    """
    check_shapes(query, tokens, offsets, layers)
    rows = absorb_query(query, layers.key_weight)  # B x R x width
    context = torch.empty(rows.shape, dtype=rows.dtype)
    begin, sizes = offsets[:-1, None].long(), offsets.diff()[:, None]
    padded_sizes = (sizes[:, 0] + _SIZE_MULTIPLE - 1) // _SIZE_MULTIPLE * _SIZE_MULTIPLE
    for length in padded_sizes.unique().tolist():
        molecules = (padded_sizes == length).nonzero().flatten()
        column = torch.arange(length)
        padding = column >= sizes[molecules]  # b x n
        x = tokens[(begin[molecules] + column).clamp_max_(tokens.shape[0] - 1)]  # b x n x width
        x.masked_fill_(padding[..., None], 0)  # Another molecule's tokens may be inf.
        scores = torch.bmm(rows[molecules], x.transpose(1, 2)).float()  # b x R x n
        weights = scores.masked_fill_(padding[:, None], float("-inf")).softmax(-1)
        context[molecules] = torch.bmm(weights.to(x.dtype), x)
    return project_context(context, layers, query.shape)
