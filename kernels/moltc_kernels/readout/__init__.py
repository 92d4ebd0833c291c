"""Readout of the graph encoder: a mean token per molecule, and LayerNorm of all tokens."""

from __future__ import annotations

from torch import Tensor

from moltc_kernels.dispatch import select_implementation

__all__ = ["readout"]


def readout(
    h: Tensor, molecule_offsets: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Pool and normalize atom states; see `moltc_kernels.readout.naive.readout`."""
    implementation = select_implementation(__name__, h, weight, bias)
    return implementation.readout(h, molecule_offsets, weight, bias, eps)
