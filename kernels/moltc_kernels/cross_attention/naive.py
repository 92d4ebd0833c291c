"""Ragged cross-attention, said plainly in torch: pad, mask, softmax; differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.contracts import ShapeError


def cross_attention(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor) -> Tensor:
    """Let each molecule's queries attend to that molecule's tokens, and to no others.

    Args:
        query: ``[B, queries, heads, dim]``.
        key: Tokens of all molecules one after another, ``[T, heads, dim]``.
        value: ``[T, heads, dim]``.
        offsets: Where each molecule's tokens begin, ``[B + 1]`` integers; no molecule is empty.

    Returns:
        ``[B, queries, heads, dim]`` in ``query``'s dtype; the softmax runs in at least float32.

    Raises:
        ShapeError: If the batch size, heads or dim of the arguments do not fit together.

    Source: BLIP-2 Q-Former cross-attention (Li et al. 2023), scores divided by sqrt(dim).
    """
    batch, _, heads, dim = query.shape
    if offsets.shape[0] != batch + 1:
        raise ShapeError.of("offsets", offsets.shape, f"[{batch + 1}]")
    for name, tensor in (("key", key), ("value", value)):
        if tensor.shape[1:] != (heads, dim):
            raise ShapeError.of(name, tensor.shape, f"[tokens, {heads}, {dim}]")
    sizes = offsets.diff().long()
    owner = torch.repeat_interleave(
        torch.arange(batch, device=sizes.device), sizes, output_size=key.shape[0]
    )
    column = torch.arange(key.shape[0], device=sizes.device) - offsets[:-1].long()[owner]
    width = int(sizes.max()) if batch else 0
    padded_key = key.new_zeros(batch, width, heads, dim).index_put((owner, column), key)
    padded_value = value.new_zeros(batch, width, heads, dim).index_put((owner, column), value)
    scores = torch.einsum("bqhd,bthd->bhqt", query, padded_key) * dim**-0.5
    if scores.dtype.itemsize < 4:
        scores = scores.float()
    # Another molecule's length must not leak in: padding gets a weight of exactly 0.
    padding = torch.arange(width, device=sizes.device) >= sizes[:, None]  # B x T
    weights = scores.masked_fill(padding[:, None, None, :], float("-inf")).softmax(-1)
    return torch.einsum("bhqt,bthd->bqhd", weights.to(value.dtype), padded_value)
