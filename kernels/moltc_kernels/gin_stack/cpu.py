"""The GIN stack on CPU, which computes equal atoms once, in passes that fit the CPU cache."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.aggregate.cpu import bond_histogram, neighbor_sum
from moltc_kernels.gin_stack.naive import atom_codes, check_shapes, initial_states
from moltc_kernels.gin_stack.weights import GinLayerWeights, GinWeights
from moltc_kernels.gin_stack.wl_dedup import unique_states_per_layer
from moltc_kernels.types import BondCsr

# Number of rows per pass: states, hidden states and one layer's weights then fit a 2 MB cache.
_ROWS_PER_PASS = 512

# In smaller batches, finding equal atoms takes longer than computing all of them.
_MIN_ATOMS_TO_DEDUP = 128


def gin_stack(
    atoms: Tensor, bonds: BondCsr, molecule_offsets: Tensor, weights: GinWeights
) -> Tensor:
    """Compute `moltc_kernels.gin_stack.naive.gin_stack`; not differentiable.

    Atoms with equal neighborhoods are computed once (`moltc_kernels.gin_stack.wl_dedup`).
    """
    check_shapes(atoms, bonds)
    histogram = bond_histogram(bonds, weights.bond_tables.shape[1], torch.float32)
    if atoms.shape[0] < _MIN_ATOMS_TO_DEDUP:
        return _compute_all_atoms(atoms, bonds, histogram, weights)
    return _compute_unique_atoms(atoms, bonds, histogram, weights)


def _compute_all_atoms(
    atoms: Tensor, bonds: BondCsr, histogram: Tensor, weights: GinWeights
) -> Tensor:
    first, *others = weights.layers
    atom_up, bond_up = weights.first_up
    own = atom_up[atom_codes(atoms)]  # V x h
    if weights.detail_up is not None:
        own.add_(weights.detail_up[atoms[:, 2].long()])
    hidden = _sum_with_neighbors(own, bonds).addmm_(histogram, bond_up)
    hidden = hidden.add_(first.up_bias).relu_().to(first.up.dtype)
    h = torch.addmm(first.down_bias, hidden, first.down)
    for layer in others:
        a = _sum_with_neighbors(h.relu_().float(), bonds)
        h = _apply_layer(a, histogram, layer)
    return h


def _sum_with_neighbors(h: Tensor, bonds: BondCsr) -> Tensor:
    return neighbor_sum(h, bonds).add_(h)


def _compute_unique_atoms(
    atoms: Tensor, bonds: BondCsr, histogram: Tensor, weights: GinWeights
) -> Tensor:
    codes = atom_codes(atoms)
    if weights.detail_table is not None:
        codes = codes * weights.detail_table.shape[0] + atoms[:, 2]
    unique = unique_states_per_layer(codes, bonds, weights.num_layers)
    inputs = _with_self_loops(bonds)
    h = initial_states(atoms[unique[0].representative], weights)  # u x d
    for layer, before, after in zip(weights.layers, unique, unique[1:], strict=False):
        if layer is not weights.layers[0]:
            h.relu_()
        wide = h.float()
        h = h.new_empty(after.representative.shape[0], h.shape[1])
        for begin in range(0, h.shape[0], _ROWS_PER_PASS):
            chosen = after.representative[begin : begin + _ROWS_PER_PASS]
            rows = _select_rows(inputs, chosen)
            a = neighbor_sum(wide, rows._replace(source=before.state[rows.source]))
            _apply_layer(a, histogram[chosen], layer, out=h[begin : begin + _ROWS_PER_PASS])
    return h[unique[-1].state]


def _apply_layer(
    a: Tensor, histogram: Tensor, layer: GinLayerWeights, out: Tensor | None = None
) -> Tensor:
    """Add the bond embeddings to neighbor sums and apply the two linear layers.

    Sums are float32; the linear layers use the weights' dtype.
    """
    a.addmm_(histogram, layer.bond_table.float())
    hidden = torch.addmm(layer.up_bias, a.to(layer.up.dtype), layer.up).relu_()
    return torch.addmm(layer.down_bias, hidden, layer.down, out=out)


def _with_self_loops(bonds: BondCsr) -> BondCsr:
    """Insert each atom before its own neighbors; the codes still cover only the bonds."""
    offsets = bonds.offsets.long() + torch.arange(bonds.num_atoms + 1)
    target = bonds.target()
    source = torch.empty(bonds.num_atoms + len(target), dtype=torch.int64)
    source[offsets[:-1]] = torch.arange(bonds.num_atoms)
    source[torch.arange(len(target)) + target + 1] = bonds.source.long()
    return BondCsr(offsets, source, bonds.code)


def _select_rows(csr: BondCsr, atoms: Tensor) -> BondCsr:
    """Select the rows of some atoms; the codes are not selected and must not be used."""
    begin = csr.offsets[atoms]
    sizes = csr.offsets[atoms + 1] - begin
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    shift = torch.repeat_interleave(begin - offsets[:-1], sizes)
    return BondCsr(offsets, csr.source[torch.arange(len(shift)) + shift], csr.code)
