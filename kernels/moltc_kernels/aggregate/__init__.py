"""Neighbour sums of the graph encoder."""

from __future__ import annotations

from torch import Tensor

from moltc_kernels.dispatch import form
from moltc_kernels.types import BondCsr

__all__ = ["aggregate"]


def aggregate(h: Tensor, csr: BondCsr, bond_table: Tensor) -> Tensor:
    """GIN aggregation; contract in `moltc_kernels.aggregate.naive.aggregate`."""
    return form(__name__, h, bond_table).aggregate(h, csr, bond_table)
