"""The GIN stack on CPU: nothing is computed twice, and what is computed stays in the cache."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.aggregate.cpu import bond_histogram, neighbour_sum
from moltc_kernels.gin_stack.naive import atom_codes, check_shapes
from moltc_kernels.gin_stack.weights import GinLayerWeights, GinWeights
from moltc_kernels.gin_stack.wl_dedup import unique_states_per_layer
from moltc_kernels.types import BondCsr

# Rows of one pass: states, hidden states and one layer's weights stay in a 2 MB cache.
_ROWS = 512

# Below, looking for equal atoms costs more than computing them.
_SHARE_FROM = 128


def gin_stack(
    atoms: Tensor, bonds: BondCsr, molecule_offsets: Tensor, weights: GinWeights
) -> Tensor:
    """As `moltc_kernels.gin_stack.naive.gin_stack`; not differentiable.

    Atoms with the same surroundings are computed once (`moltc_kernels.gin_stack.wl_dedup`).
    """
    check_shapes(atoms, bonds)
    codes = atom_codes(atoms)
    histogram = bond_histogram(bonds, weights.bond_tables.shape[1], torch.float32)
    if atoms.shape[0] < _SHARE_FROM:
        return _every_atom(codes, bonds, histogram, weights)
    return _different_atoms(codes, bonds, histogram, weights)


def _every_atom(codes: Tensor, bonds: BondCsr, histogram: Tensor, weights: GinWeights) -> Tensor:
    first, *others = weights.layers
    atom_up, bond_up = weights.first_up
    hidden = _sum_of_neighbourhood(atom_up[codes], bonds).addmm_(histogram, bond_up)
    hidden = hidden.add_(first.up_bias).relu_().to(first.up.dtype)
    h = torch.addmm(first.down_bias, hidden, first.down)
    for layer in others:
        a = _sum_of_neighbourhood(h.relu_().float(), bonds)
        h = _multiply(a, histogram, layer)
    return h


def _sum_of_neighbourhood(h: Tensor, bonds: BondCsr) -> Tensor:
    return neighbour_sum(h, bonds).add_(h)


def _different_atoms(
    codes: Tensor, bonds: BondCsr, histogram: Tensor, weights: GinWeights
) -> Tensor:
    found = unique_states_per_layer(codes, bonds, weights.num_layers)
    reads = _with_self_loops(bonds)
    h = weights.atom_table[codes[found[0].example]]  # u x d
    for layer, before, after in zip(weights.layers, found, found[1:], strict=False):
        if layer is not weights.layers[0]:
            h.relu_()
        wide = h.float()
        h = h.new_empty(after.example.shape[0], h.shape[1])
        for begin in range(0, h.shape[0], _ROWS):
            atoms = after.example[begin : begin + _ROWS]
            rows = _rows_of(reads, atoms)
            a = neighbour_sum(wide, rows._replace(source=before.state[rows.source]))
            _multiply(a, histogram[atoms], layer, out=h[begin : begin + _ROWS])
    return h[found[-1].state]


def _multiply(
    a: Tensor, histogram: Tensor, layer: GinLayerWeights, out: Tensor | None = None
) -> Tensor:
    """Bonds' part and the two linear layers; sums are float32, products the weights' dtype."""
    a.addmm_(histogram, layer.bond_table.float())
    hidden = torch.addmm(layer.up_bias, a.to(layer.up.dtype), layer.up).relu_()
    return torch.addmm(layer.down_bias, hidden, layer.down, out=out)


def _with_self_loops(bonds: BondCsr) -> BondCsr:
    """What each atom reads: itself, then its neighbours. The codes are counted elsewhere."""
    offsets = bonds.offsets.long() + torch.arange(bonds.num_atoms + 1)
    target = bonds.target()
    source = torch.empty(bonds.num_atoms + len(target), dtype=torch.int64)
    source[offsets[:-1]] = torch.arange(bonds.num_atoms)
    source[torch.arange(len(target)) + target + 1] = bonds.source.long()
    return BondCsr(offsets, source, bonds.code)


def _rows_of(csr: BondCsr, atoms: Tensor) -> BondCsr:
    """The given atoms' rows of ``csr``, without codes."""
    begin = csr.offsets[atoms]
    sizes = csr.offsets[atoms + 1] - begin
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    shift = torch.repeat_interleave(begin - offsets[:-1], sizes)
    return BondCsr(offsets, csr.source[torch.arange(len(shift)) + shift], csr.code)
