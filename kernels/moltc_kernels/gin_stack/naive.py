"""The whole GIN stack: the reference in plain torch, differentiable in the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.aggregate.naive import aggregate
from moltc_kernels.gin_stack.weights import GinWeights
from moltc_kernels.types import CHIRALITIES, BondCsr, ShapeError


def gin_stack(
    atoms: Tensor, bonds: BondCsr, molecule_offsets: Tensor, weights: GinWeights
) -> Tensor:
    """Embed every atom and apply L layers.

    A layer is a sum over neighbors (`moltc_kernels.aggregate`), two linear layers with ReLU in
    between, and, except after the last layer, another ReLU.

    Args:
        atoms: Atom type, chirality and detail code, ``[V, 3]`` integers. The detail code is read
            only if the weights have a detail table.
        bonds: Incoming bonds of every atom.
        molecule_offsets: Offsets of the molecules' atoms, ``[B + 1]`` integers. The result does
            not depend on them, but implementations that process molecule by molecule need them.
        weights: Weights with batch norm folded in.

    Returns:
        ``[V, d]`` in the weights' dtype; sums and products are accumulated in at least float32.

    Raises:
        ShapeError: If the number of atoms differs between the arguments.

    Source: Hu et al. 2020 (GIN with edge features). As in the published MolTC, there is no
    (1 + eps) factor, and the self loop has bond code 0;
    ``docs/concepts/published-model.md``, "Graph encoder (GIN)".
    """
    check_shapes(atoms, bonds)
    h = initial_states(atoms, weights)  # V x d
    for layer in range(weights.num_layers):
        a = aggregate(h, bonds, weights.bond_tables[layer])
        hidden = torch.relu(a @ weights.up[layer] + weights.up_bias[layer])  # V x h
        h = hidden @ weights.down[layer] + weights.down_bias[layer]
        if layer != weights.num_layers - 1:
            h = torch.relu(h)
    return h


def atom_codes(atoms: Tensor) -> Tensor:
    """Compute each atom's row in `GinWeights.atom_table`, ``[V]`` int64."""
    return atoms[:, 0].long() * CHIRALITIES + atoms[:, 1]


def initial_states(atoms: Tensor, weights: GinWeights) -> Tensor:
    """Embed every atom: its row of the atom table plus its row of the detail table, ``[V, d]``."""
    h = weights.atom_table[atom_codes(atoms)]
    return h if weights.detail_table is None else h + weights.detail_table[atoms[:, 2].long()]


def check_shapes(atoms: Tensor, bonds: BondCsr) -> None:
    """Check that atoms and bonds are of the same batch.

    Raises:
        ShapeError: If they are not.
    """
    if atoms.shape != (bonds.num_atoms, 3):
        raise ShapeError.of("atoms", atoms.shape, f"[{bonds.num_atoms}, 3]")
