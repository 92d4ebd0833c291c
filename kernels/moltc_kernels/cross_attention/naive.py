"""Ragged cross-attention: the reference in plain torch (project, pad, mask, softmax).

Differentiable.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from moltc_kernels.types import ShapeError


class KeyValue(NamedTuple):
    """Weights of the key and value layers; out = heads * dim, in = width of the tokens."""

    key_weight: Tensor  # [out, in]
    key_bias: Tensor  # [out]
    value_weight: Tensor  # [out, in]
    value_bias: Tensor  # [out]


def cross_attention(query: Tensor, tokens: Tensor, offsets: Tensor, layers: KeyValue) -> Tensor:
    """Let each molecule's queries attend to that molecule's tokens only.

    Args:
        query: Queries, ``[B, queries, heads, dim]``.
        tokens: Concatenated tokens of all molecules, ``[T, width]``.
        offsets: Offsets of the molecules' tokens, ``[B + 1]`` integers; no molecule is empty.
        layers: Key and value layers, ``width -> heads * dim``.

    Returns:
        ``[B, queries, heads, dim]`` in ``query``'s dtype; the softmax runs in at least float32.

    Raises:
        ShapeError: If the batch size, heads, dim or width of the arguments do not fit together.

    Source: BLIP-2 Q-Former (Li et al. 2023), scores divided by sqrt(dim);
    ``docs/concepts/published-model.md``, "Q-Former".
    """
    check_shapes(query, tokens, offsets, layers)
    batch, _, heads, dim = query.shape
    key = F.linear(tokens, layers.key_weight, layers.key_bias).unflatten(-1, (heads, dim))
    value = F.linear(tokens, layers.value_weight, layers.value_bias).unflatten(-1, (heads, dim))
    sizes = offsets.diff().long()
    molecule = torch.repeat_interleave(
        torch.arange(batch, device=sizes.device), sizes, output_size=key.shape[0]
    )
    column = torch.arange(key.shape[0], device=sizes.device) - offsets[:-1].long()[molecule]
    width = int(sizes.max()) if batch else 0
    padded_key = key.new_zeros(batch, width, heads, dim).index_put((molecule, column), key)
    padded_value = value.new_zeros(batch, width, heads, dim).index_put((molecule, column), value)
    scores = torch.einsum("bqhd,bthd->bhqt", query, padded_key) * dim**-0.5
    if scores.dtype.itemsize < 4:
        scores = scores.float()
    # Padding gets a weight of exactly 0, so results do not depend on other molecules' lengths.
    padding = torch.arange(width, device=sizes.device) >= sizes[:, None]  # B x T
    weights = scores.masked_fill(padding[:, None, None, :], float("-inf")).softmax(-1)
    return torch.einsum("bhqt,bthd->bqhd", weights.to(value.dtype), padded_value)


def check_shapes(query: Tensor, tokens: Tensor, offsets: Tensor, layers: KeyValue) -> None:
    """Check that the arguments of `cross_attention` fit together.

    Raises:
        ShapeError: If they do not.
    """
    batch, _, heads, dim = query.shape
    if offsets.shape[0] != batch + 1:
        raise ShapeError.of("offsets", offsets.shape, f"[{batch + 1}]")
    expected = (heads * dim, tokens.shape[1])
    for name in ("key_weight", "value_weight"):
        tensor = getattr(layers, name)
        if tensor.shape != expected:
            raise ShapeError.of(name, tensor.shape, f"[{expected[0]}, {expected[1]}]")
