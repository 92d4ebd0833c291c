"""Find the atoms of a batch that have equal states after a layer, without computing the states.

After l layers an atom's state depends only on its neighborhood up to l bonds away, so atoms with
equal neighborhoods need to be computed only once. These classes of atoms are the colors of the
Weisfeiler-Lehman test, which bounds what any such network can distinguish (Xu et al. 2019). A
library has few of them: the 47,405 atoms of 2,048 ZINC molecules have 520 distinct states after
one layer, 7,067 after two and 39,536 after five.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from moltc_kernels.types import BondCsr

# Odd constants with well-mixed bits as int64: the first and last are from splitmix64, the second
# is from xxHash.
_OWN_FACTOR, _NEIGHBOR_FACTOR, _MIX_FACTOR = (
    -7046029254386353131,
    -4417276706812531889,
    -4658895280553007687,
)


class UniqueStates(NamedTuple):
    """Distinct states of V atoms before or after a layer; u is their number."""

    representative: Tensor  # [u] int64, first atom of the batch with each state
    state: Tensor  # [V] int64, index of each atom's state, 0 to u - 1


def unique_states_per_layer(codes: Tensor, bonds: BondCsr, layers: int) -> list[UniqueStates]:
    """Find the distinct atom states before the first layer and after each of L layers.

    Args:
        codes: Atom codes, ``[V]`` int64.
        bonds: Incoming bonds of every atom.
        layers: Number of layers, L.

    Returns:
        L + 1 entries. Atoms are grouped by a hash of their neighborhoods and then compared, so a
        hash collision never merges atoms with different states.
    """
    atoms = codes.shape[0]
    offsets, source, code = bonds.offsets.long(), bonds.source.long(), bonds.code.long()
    target = bonds.target()
    max_degree = int(offsets.diff().max()) if atoms else 0
    slot = target * max_degree + torch.arange(len(target)) - offsets[target]
    num_codes = int(code.max()) + 1 if len(code) else 1
    unique = [_group_equal(codes)]
    for _ in range(layers):
        state = unique[-1].state
        flat = torch.zeros(atoms * max_degree, dtype=torch.int64)
        flat[slot] = state[source] * num_codes + code + 1
        neighbors = flat.view(atoms, max_degree)  # V x degree, 0 after the last neighbor
        hashed = _mix(state + 1, _OWN_FACTOR) + _mix(neighbors, _NEIGHBOR_FACTOR).sum(1)
        layer = _group_equal(hashed)
        representative = layer.representative[layer.state]  # V
        ordered = neighbors.sort(dim=1).values
        is_exact = torch.equal(state, state[representative]) and torch.equal(
            ordered, ordered[representative]
        )
        # On a collision, about one in 10^9 batches, every atom is computed.
        unique.append(layer if is_exact else all_distinct(codes))
    return unique


def all_distinct(codes: Tensor) -> UniqueStates:
    """Give each atom a state of its own."""
    atoms = torch.arange(codes.shape[0])
    return UniqueStates(atoms, atoms)


def _group_equal(labels: Tensor) -> UniqueStates:
    unique, state = torch.unique(labels, return_inverse=True)
    # The first atom represents its group, so the result does not depend on the order of labels.
    representative = torch.full_like(unique, labels.shape[0])
    representative.scatter_reduce_(0, state, torch.arange(labels.shape[0]), "amin")
    return UniqueStates(representative, state)


def _mix(x: Tensor, factor: int) -> Tensor:
    x = x * factor
    x = (x ^ (x >> 29)) * _MIX_FACTOR
    return x ^ (x >> 32)
