"""Cross-attention without keys and values, as the fast implementations compute it.

``q . (W_k x + b_k) = (W_k^T q) . x + q . b_k``: the second term is the same for all tokens of a
molecule and cancels in the softmax, so the key layer can be absorbed into the queries. Each query
and head then becomes a row of the tokens' width. The softmax weights sum to 1, so the value layer
can be applied after the sum: ``sum p (W_v x + b_v) = W_v (sum p x) + b_v``.
"""

from __future__ import annotations

import torch
from torch import Size, Tensor

from moltc_kernels.cross_attention.naive import KeyValue


def absorb_query(query: Tensor, key_weight: Tensor) -> Tensor:
    """Absorb the key layer and the scale into the queries.

    Args:
        query: Queries, ``[B, queries, heads, dim]``.
        key_weight: Weight of the key layer, ``[heads * dim, width]``.

    Returns:
        ``[B, queries * heads, width]``; their products with tokens are the scores.
    """
    batch, queries, heads, dim = query.shape
    if batch > 1 and query.stride(0) == 0:  # Expanded: the queries of all molecules are equal.
        return absorb_query(query[:1], key_weight).expand(batch, -1, -1)
    by_head = query.permute(2, 0, 1, 3).reshape(heads, batch * queries, dim) * dim**-0.5
    rows = torch.bmm(by_head, key_weight.view(heads, dim, -1))  # heads x BQ x width
    return rows.transpose(0, 1).reshape(batch, queries * heads, key_weight.shape[1])


def project_context(context: Tensor, layers: KeyValue, shape: Size) -> Tensor:
    """Apply the value layer to the attended tokens.

    Args:
        context: Weighted sums of tokens, ``[B, queries * heads, width]``.
        layers: Key and value layers.
        shape: Shape of the queries, ``[B, queries, heads, dim]``.

    Returns:
        ``[B, queries, heads, dim]``.
    """
    batch, queries, heads, dim = shape
    by_head = context.view(batch * queries, heads, context.shape[-1]).transpose(0, 1)
    weight = layers.value_weight.view(heads, dim, -1).transpose(1, 2)  # heads x width x dim
    bias = layers.value_bias.view(heads, 1, dim)
    return torch.baddbmm(bias, by_head, weight).transpose(0, 1).reshape(shape)
