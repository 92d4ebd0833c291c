"""The GIN stack on a GPU: one launch for a few small molecules, library products otherwise."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.aggregate.triton import aggregate
from moltc_kernels.alignment import aligned_width
from moltc_kernels.gin_stack import fused
from moltc_kernels.gin_stack.naive import atom_codes, check_shapes
from moltc_kernels.gin_stack.padding import padded
from moltc_kernels.gin_stack.weights import GinWeights
from moltc_kernels.types import BondCsr


def gin_stack(
    atoms: Tensor, bonds: BondCsr, molecule_offsets: Tensor, weights: GinWeights
) -> Tensor:
    """As `moltc_kernels.gin_stack.naive.gin_stack`, with aligned rows; not differentiable."""
    check_shapes(atoms, bonds)
    if not atoms.shape[0]:
        return weights.down.new_empty(0, weights.dim)
    tiles = fused.tiles_for(atoms, molecule_offsets, weights)
    if tiles is not None:
        return fused.gin_stack(atoms, bonds, molecule_offsets, weights, tiles)
    return layer_by_layer(atoms, bonds, weights)


def layer_by_layer(atoms: Tensor, bonds: BondCsr, weights: GinWeights) -> Tensor:
    """A neighbour sum and two library products a layer: any molecule size, any dtype.

    Rows are aligned (300 columns are 304 in half precision), those of the result, too.
    """
    itemsize = weights.up.dtype.itemsize
    dim, inner = (aligned_width(size, itemsize) for size in weights.up.shape[1:])
    wide = padded(weights, dim, inner, codes=weights.bond_tables.shape[1])
    h = wide.atom_table[atom_codes(atoms)]  # V x d
    for layer in range(weights.num_layers - 1):
        a = aggregate(h, bonds, wide.bond_tables[layer])
        hidden = linear_relu(a, wide.up[layer], wide.up_bias[layer])  # V x h
        h = linear_relu(hidden, wide.down[layer], wide.down_bias[layer])
    a = aggregate(h, bonds, wide.bond_tables[-1])
    hidden = linear_relu(a, wide.up[-1], wide.up_bias[-1])
    return torch.addmm(wide.down_bias[-1], hidden, wide.down[-1])[:, : weights.dim]


def linear_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``relu(x W + b)``; bias and ReLU are done by the product itself where the library can."""
    return torch._addmm_activation(bias, x, weight)
