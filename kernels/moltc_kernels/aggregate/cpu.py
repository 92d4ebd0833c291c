"""GIN aggregation on CPU: neighbors through `embedding_bag`, bonds through a histogram."""

from __future__ import annotations

import torch
from torch import Tensor

from moltc_kernels.aggregate.naive import check_shapes
from moltc_kernels.types import SELF_LOOP_CODE, BondCsr


def aggregate(h: Tensor, csr: BondCsr, bond_table: Tensor) -> Tensor:
    """Compute `moltc_kernels.aggregate.naive.aggregate` without a message per bond.

    Neighbor states are summed without being copied first. The bond embeddings are added by one
    small matrix product: the histogram of the 18 bond codes at each atom, times the bond table.
    Not differentiable.
    """
    check_shapes(h, csr, bond_table)
    wide = h if h.dtype.itemsize >= 4 else h.float()
    total = neighbor_sum(wide, csr).add_(wide)
    histogram = bond_histogram(csr, bond_table.shape[0], wide.dtype)
    return total.addmm_(histogram, bond_table.to(wide.dtype)).to(h.dtype)


def neighbor_sum(h: Tensor, csr: BondCsr) -> Tensor:
    """Sum the states of each atom's neighbors.

    Args:
        h: States that ``csr.source`` indexes, ``[rows, dim]``; ``rows`` may differ from V.
        csr: Incoming bonds of V atoms.

    Returns:
        ``[V, dim]`` in ``h``'s dtype.
    """
    # `torch.nn.functional.embedding_bag` adds checks that take longer than the sums of a molecule.
    return torch.embedding_bag(h, csr.source, csr.offsets, False, 0, False, None, True)[0]


def bond_histogram(csr: BondCsr, codes: int, dtype: torch.dtype) -> Tensor:
    """Count the bonds of each code at each atom, self loop included, ``[V, codes]``."""
    bins = csr.target() * codes + csr.code
    counts = torch.bincount(bins, minlength=csr.num_atoms * codes).view(csr.num_atoms, codes)
    counts[:, SELF_LOOP_CODE] += 1
    return counts.to(dtype)
