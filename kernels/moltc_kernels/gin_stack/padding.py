"""Weights padded with zeros to sizes that suit a kernel; built once per set of weights."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch.nn.functional as F

from moltc_kernels.gin_stack.weights import GinWeights

_CACHE: WeakKeyDictionary[GinWeights, dict[tuple[int, int, int], GinWeights]] = WeakKeyDictionary()


def padded(weights: GinWeights, dim: int, inner: int, codes: int) -> GinWeights:
    """The same layers in larger tables; the added columns stay exactly zero in every layer.

    Args:
        weights: Must not be changed in place afterwards: the result is kept as long as they are.
        dim: New width of an atom's state.
        inner: New inner width.
        codes: New number of rows of the bond tables.

    Returns:
        ``weights`` itself where nothing has to be added.
    """
    more_dim, more_inner = dim - weights.dim, inner - weights.up.shape[2]
    more_codes = codes - weights.bond_tables.shape[1]
    if not (more_dim or more_inner or more_codes):
        return weights
    sizes = _CACHE.setdefault(weights, {})
    if (dim, inner, codes) not in sizes:
        sizes[dim, inner, codes] = GinWeights(
            atom_table=F.pad(weights.atom_table, (0, more_dim)),
            bond_tables=F.pad(weights.bond_tables, (0, more_dim, 0, more_codes)),
            up=F.pad(weights.up, (0, more_inner, 0, more_dim)),
            up_bias=F.pad(weights.up_bias, (0, more_inner)),
            down=F.pad(weights.down, (0, more_dim, 0, more_inner)),
            down_bias=F.pad(weights.down_bias, (0, more_dim)),
        )
    return sizes[dim, inner, codes]
