"""Pad weights with zeros to sizes that suit a kernel, once per set of weights."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch.nn.functional as F

from moltc_kernels.gin_stack.weights import GinWeights

_CACHE: WeakKeyDictionary[GinWeights, dict[tuple[int, int, int], GinWeights]] = WeakKeyDictionary()


def pad_weights(weights: GinWeights, dim: int, inner: int, codes: int) -> GinWeights:
    """Pad the weights of all layers; the added columns stay exactly zero in every layer.

    Args:
        weights: Weights to pad. The result is cached as long as they exist, so they must not be
            changed in place afterwards.
        dim: Padded width of an atom's state.
        inner: Padded inner width.
        codes: Padded number of rows of the bond tables.

    Returns:
        Padded weights, or ``weights`` itself if they already have these sizes.
    """
    extra_dim, extra_inner = dim - weights.dim, inner - weights.up.shape[2]
    extra_codes = codes - weights.bond_tables.shape[1]
    if not (extra_dim or extra_inner or extra_codes):
        return weights
    by_size = _CACHE.setdefault(weights, {})
    if (dim, inner, codes) not in by_size:
        details = weights.detail_table
        by_size[dim, inner, codes] = GinWeights(
            atom_table=F.pad(weights.atom_table, (0, extra_dim)),
            bond_tables=F.pad(weights.bond_tables, (0, extra_dim, 0, extra_codes)),
            up=F.pad(weights.up, (0, extra_inner, 0, extra_dim)),
            up_bias=F.pad(weights.up_bias, (0, extra_inner)),
            down=F.pad(weights.down, (0, extra_dim, 0, extra_inner)),
            down_bias=F.pad(weights.down_bias, (0, extra_dim)),
            detail_table=details if details is None else F.pad(details, (0, extra_dim)),
        )
    return by_size[dim, inner, codes]
