"""Neighbour sums of the graph encoder."""

from __future__ import annotations

from torch import Tensor

from moltc_kernels.aggregate import cpu, naive
from moltc_kernels.contracts import BondCsr
from moltc_kernels.dispatch import backend_for

__all__ = ["aggregate"]


def aggregate(h: Tensor, csr: BondCsr, bond_table: Tensor) -> Tensor:
    """GIN aggregation; contract in `moltc_kernels.aggregate.naive.aggregate`."""
    match backend_for(h, bond_table):
        case "naive":
            return naive.aggregate(h, csr, bond_table)
        case "cpu":
            return cpu.aggregate(h, csr, bond_table)
        case "triton":
            from moltc_kernels.aggregate import triton

            return triton.aggregate(h, csr, bond_table)
