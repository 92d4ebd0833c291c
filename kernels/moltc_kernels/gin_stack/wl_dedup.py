"""Which atoms of a batch have the same state after a layer, found before anything is computed.

After l layers an atom's state depends on nothing but its surroundings out to l bonds. Two atoms
whose surroundings read the same get the same state, so one of them is enough (the colours of
Weisfeiler and Leman, which bound what any such network can tell apart: Xu et al. 2019). In a
library that is many: of 47,405 atoms of 2,048 ZINC molecules there are 520 different ones after
one layer, 7,067 after two and 39,536 after five.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from moltc_kernels.types import BondCsr

# Odd constants that spread bits well: of splitmix64 (first and last) and of xxHash, as int64.
_OWN, _NEIGHBOUR, _STIR = -7046029254386353131, -4417276706812531889, -4658895280553007687


class UniqueStates(NamedTuple):
    """The different atoms of one layer; ``u`` of them, each given by one example."""

    example: Tensor  # [u] int64: an atom of the batch with this state
    state: Tensor  # [V] int64: which of the u states each atom has


def unique_states_per_layer(codes: Tensor, bonds: BondCsr, layers: int) -> list[UniqueStates]:
    """Find the different atoms before the first layer and after each of the L layers.

    Args:
        codes: Atom codes, ``[V]`` int64.
        bonds: Incoming bonds of every atom.
        layers: L.

    Returns:
        L + 1 entries. Equal states are compared, not only their hashes: no collision can join two
        atoms that differ.
    """
    atoms = codes.shape[0]
    offsets, source, code = bonds.offsets.long(), bonds.source.long(), bonds.code.long()
    target = bonds.target()
    degree = int(offsets.diff().max()) if atoms else 0
    place = target * degree + torch.arange(len(target)) - offsets[target]
    num_codes = int(code.max()) + 1 if len(code) else 1
    found = [_examples(codes)]
    for _ in range(layers):
        state = found[-1].state
        seen = torch.zeros(atoms * degree, dtype=torch.int64)
        seen[place] = state[source] * num_codes + code + 1
        neighbours = seen.view(atoms, degree)  # V x degree, 0 where there is none
        hashed = _mix(state + 1, _OWN) + _mix(neighbours, _NEIGHBOUR).sum(1)
        layer = _examples(hashed)
        of_example = layer.example[layer.state]  # V
        ordered = neighbours.sort(dim=1).values
        if not (
            torch.equal(state, state[of_example]) and torch.equal(ordered, ordered[of_example])
        ):
            # A collision, of which there is one in about 10^9 batches: keep every atom apart.
            layer = every_atom(codes)
        found.append(layer)
    return found


def every_atom(codes: Tensor) -> UniqueStates:
    """Each atom has a state of its own."""
    every = torch.arange(codes.shape[0])
    return UniqueStates(every, every)


def _examples(labels: Tensor) -> UniqueStates:
    unique, state = torch.unique(labels, return_inverse=True)
    # The first atom with a state stands for it, whatever order the labels sort in.
    example = torch.full_like(unique, labels.shape[0])
    example.scatter_reduce_(0, state, torch.arange(labels.shape[0]), "amin")
    return UniqueStates(example, state)


def _mix(x: Tensor, constant: int) -> Tensor:
    x = x * constant
    x = (x ^ (x >> 29)) * _STIR
    return x ^ (x >> 32)
