"""Sum neighbor states and bond embeddings, as the graph encoder's layers do."""

from __future__ import annotations

from torch import Tensor

from moltc_kernels.dispatch import select_implementation
from moltc_kernels.types import BondCsr

__all__ = ["aggregate"]


def aggregate(h: Tensor, csr: BondCsr, bond_table: Tensor) -> Tensor:
    """Aggregate over neighbors (GIN); see `moltc_kernels.aggregate.naive.aggregate`."""
    return select_implementation(__name__, h, bond_table).aggregate(h, csr, bond_table)
