"""All message-passing layers of the graph encoder, with batch norm folded in, for inference."""

from __future__ import annotations

from torch import Tensor

from moltc_kernels.dispatch import select_implementation
from moltc_kernels.gin_stack.weights import GinWeights, fold_batch_norm
from moltc_kernels.types import BondCsr

__all__ = ["GinWeights", "fold_batch_norm", "gin_stack"]


def gin_stack(
    atoms: Tensor, bonds: BondCsr, molecule_offsets: Tensor, weights: GinWeights
) -> Tensor:
    """Compute atom states after the last layer; see `moltc_kernels.gin_stack.naive.gin_stack`."""
    implementation = select_implementation(__name__, weights.up)
    return implementation.gin_stack(atoms, bonds, molecule_offsets, weights)
