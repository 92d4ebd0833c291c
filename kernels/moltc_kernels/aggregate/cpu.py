"""GIN aggregation on CPU: neighbours through `embedding_bag`, bonds through a histogram."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.aggregate.naive import check_shapes
from moltc_kernels.types import SELF_LOOP_CODE, BondCsr


def aggregate(h: Tensor, csr: BondCsr, bond_table: Tensor) -> Tensor:
    """As `moltc_kernels.aggregate.naive.aggregate`, without a message per bond.

    The neighbours' states are summed where they lie, and the bonds' rows are one small product:
    how often each of the 18 codes occurs at an atom, times the table. Not differentiable here.
    """
    check_shapes(h, csr, bond_table)
    wide = h if h.dtype.itemsize >= 4 else h.float()
    total = neighbour_sum(wide, csr).add_(wide)
    histogram = bond_histogram(csr, bond_table.shape[0], wide.dtype)
    return total.addmm_(histogram, bond_table.to(wide.dtype)).to(h.dtype)


def neighbour_sum(h: Tensor, csr: BondCsr) -> Tensor:
    """Sum of each atom's neighbours, ``[V, dim]``; ``h`` may have another number of rows."""
    # Not through `torch.nn.functional`, whose checks take longer than a molecule's sums.
    return torch.embedding_bag(h, csr.source, csr.offsets, False, 0, False, None, True)[0]


def bond_histogram(csr: BondCsr, codes: int, dtype: torch.dtype) -> Tensor:
    """How often each bond code occurs at each atom, self loop included, ``[V, codes]``."""
    place = csr.target() * codes + csr.code
    counts = torch.bincount(place, minlength=csr.num_atoms * codes).view(csr.num_atoms, codes)
    counts[:, SELF_LOOP_CODE] += 1
    return counts.to(dtype)
