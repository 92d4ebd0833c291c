"""Differentiable cross-attention in groups of molecules of similar size, for training on CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.cross_attention.naive import KeyValue, check_shapes, cross_attention

_SMALLEST_GROUP_SIZE = 16
"""Size limit of the first group, in tokens; the limit doubles from each group to the next."""


def grouped_cross_attention(
    query: Tensor, tokens: Tensor, offsets: Tensor, layers: KeyValue
) -> Tensor:
    """Compute `moltc_kernels.cross_attention.naive.cross_attention` group by group.

    The naive implementation pads every molecule to the size of the largest; here, padding stays
    within a group. Differentiable.
    """
    check_shapes(query, tokens, offsets, layers)
    begin, sizes = offsets[:-1].long(), offsets.diff().long()
    group_of_molecule = (sizes.clamp(min=_SMALLEST_GROUP_SIZE) - 1).double().log2().floor()
    groups = group_of_molecule.unique().tolist()
    if len(groups) < 2:
        return cross_attention(query, tokens, offsets, layers)
    results, order = [], []
    for group in groups:
        molecules = (group_of_molecule == group).nonzero().flatten()
        group_sizes = sizes[molecules]
        ends = group_sizes.cumsum(0)
        shift = torch.repeat_interleave(begin[molecules] - ends + group_sizes, group_sizes)
        rows = torch.arange(len(shift), device=shift.device) + shift
        results.append(
            cross_attention(
                query.index_select(0, molecules),
                tokens.index_select(0, rows),
                torch.cat([ends.new_zeros(1), ends]),
                layers,
            )
        )
        order.append(molecules)
    return torch.cat(results).index_select(0, torch.cat(order).argsort())
