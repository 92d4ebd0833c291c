"""The whole GIN stack, said plainly in torch; differentiable in the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.aggregate.naive import aggregate
from moltc_kernels.gin_stack.weights import GinWeights
from moltc_kernels.types import CHIRALITIES, BondCsr, ShapeError


def gin_stack(
    atoms: Tensor, bonds: BondCsr, molecule_offsets: Tensor, weights: GinWeights
) -> Tensor:
    """Embed every atom, then L times: sum the neighbours, two linear layers, ReLU (not the last).

    Args:
        atoms: Atom type and chirality, ``[V, 2]`` integers.
        bonds: Incoming bonds of every atom.
        molecule_offsets: Where each molecule's atoms begin, ``[B + 1]`` integers. The result does
            not depend on it; forms that work molecule by molecule need it.
        weights: The folded weights.

    Returns:
        ``[V, d]`` in the weights' dtype; sums and products are accumulated in at least float32.

    Raises:
        ShapeError: If the number of atoms differs between the arguments.

    Source: Hu et al. 2020 (GIN with edge features); REFERENCE: no (1 + eps) factor, the self loop
    has the bond code 0, no ReLU after the last layer.
    """
    check_shapes(atoms, bonds)
    h = weights.atom_table[atom_codes(atoms)]  # V x d
    for layer in range(weights.num_layers):
        a = aggregate(h, bonds, weights.bond_tables[layer])
        hidden = torch.relu(a @ weights.up[layer] + weights.up_bias[layer])  # V x h
        h = hidden @ weights.down[layer] + weights.down_bias[layer]
        if layer != weights.num_layers - 1:
            h = torch.relu(h)
    return h


def atom_codes(atoms: Tensor) -> Tensor:
    """Row of each atom in the summed atom table, ``[V]`` int64."""
    kind, chirality = atoms.long().unbind(1)
    return kind * CHIRALITIES + chirality


def check_shapes(atoms: Tensor, bonds: BondCsr) -> None:
    """Raise a `ShapeError` if atoms and bonds are of different batches."""
    if atoms.shape != (bonds.num_atoms, 2):
        raise ShapeError.of("atoms", atoms.shape, f"[{bonds.num_atoms}, 2]")
