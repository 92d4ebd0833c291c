"""The GIN stack on a GPU: one fused launch for few and small molecules, else layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.aggregate.triton import aggregate
from moltc_kernels.alignment import aligned_width
from moltc_kernels.gin_stack import fused
from moltc_kernels.gin_stack.naive import check_shapes, initial_states
from moltc_kernels.gin_stack.padding import pad_weights
from moltc_kernels.gin_stack.weights import GinWeights
from moltc_kernels.types import BondCsr


def gin_stack(
    atoms: Tensor, bonds: BondCsr, molecule_offsets: Tensor, weights: GinWeights
) -> Tensor:
    """Compute `moltc_kernels.gin_stack.naive.gin_stack` with kernels; not differentiable.

    The result has aligned rows (`moltc_kernels.alignment`).
    """
    check_shapes(atoms, bonds)
    if not atoms.shape[0]:
        return weights.down.new_empty(0, weights.dim)
    tiles = fused.select_tiles(atoms, molecule_offsets, weights)
    if tiles is not None:
        return fused.gin_stack(atoms, bonds, molecule_offsets, weights, tiles)
    return layer_by_layer(atoms, bonds, weights)


def layer_by_layer(atoms: Tensor, bonds: BondCsr, weights: GinWeights) -> Tensor:
    """Compute each layer as a neighbor sum and two matrix products of the library.

    This works for molecules of any size and for any dtype. All rows are aligned, including those of
    the result: in half precision, 300 columns have a stride of 304.
    """
    itemsize = weights.up.dtype.itemsize
    dim, inner = (aligned_width(size, itemsize) for size in weights.up.shape[1:])
    wide = pad_weights(weights, dim, inner, codes=weights.bond_tables.shape[1])
    h = initial_states(atoms, wide)  # V x d
    for layer in range(weights.num_layers - 1):
        a = aggregate(h, bonds, wide.bond_tables[layer])
        hidden = linear_relu(a, wide.up[layer], wide.up_bias[layer])  # V x h
        h = linear_relu(hidden, wide.down[layer], wide.down_bias[layer])
    a = aggregate(h, bonds, wide.bond_tables[-1])
    hidden = linear_relu(a, wide.up[-1], wide.up_bias[-1])
    return torch.addmm(wide.down_bias[-1], hidden, wide.down[-1])[:, : weights.dim]


def linear_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute ``relu(x W + b)``, with bias and ReLU fused into the product if the library can."""
    return torch._addmm_activation(bias, x, weight)
