"""Mean pooling and LayerNorm of a ragged batch: the reference in plain torch, differentiable."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from moltc_kernels.types import ShapeError


def readout(
    h: Tensor, molecule_offsets: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Insert each molecule's mean before its atoms and normalize every row (LayerNorm).

    Args:
        h: Atom states, ``[V, dim]``.
        molecule_offsets: Offsets of the molecules' atoms, ``[B + 1]`` integers.
        weight: LayerNorm gain, ``[dim]``.
        bias: LayerNorm shift, ``[dim]``.
        eps: Constant added to the variance.

    Returns:
        Tokens ``[V + B, dim]`` in ``h``'s dtype (normalized in at least float32) and offsets of
        the molecules' tokens, ``[B + 1]`` int64. A molecule's first token is its mean.

    Raises:
        ShapeError: If ``dim`` differs between the arguments.

    Source: MolCA and MolTC, where the pooled graph vector is token 0 and ``ln_graph`` normalizes
    all tokens; ``docs/concepts/published-model.md``, "Graph encoder (GIN)".
    """
    check_shapes(h, weight, bias)
    offsets = molecule_offsets.long()
    sizes = offsets.diff()
    batch, (atoms, dim) = sizes.shape[0], h.shape
    wide = h if h.dtype.itemsize >= 4 else h.float()
    molecule = torch.repeat_interleave(
        torch.arange(batch, device=h.device), sizes, output_size=atoms
    )
    mean = wide.new_zeros(batch, dim).index_add(0, molecule, wide) / sizes[:, None]  # B x d
    token_offsets = offsets + torch.arange(batch + 1, device=h.device)
    row_of_atom = torch.arange(atoms, device=h.device) + molecule + 1
    tokens = wide.new_zeros(atoms + batch, dim)
    tokens = tokens.index_put((row_of_atom,), wide).index_put((token_offsets[:-1],), mean)
    normalized = F.layer_norm(tokens, (dim,), weight.to(wide.dtype), bias.to(wide.dtype), eps)
    return normalized.to(h.dtype), token_offsets


def check_shapes(h: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Check that the arguments of `readout` fit together.

    Raises:
        ShapeError: If they do not.
    """
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor.shape != h.shape[1:]:
            raise ShapeError.of(name, tensor.shape, f"[{h.shape[1]}]")
