"""Read-out of the graph encoder: a mean token and the atoms, normalised."""

from __future__ import annotations

from torch import Tensor

from moltc_kernels.dispatch import form

__all__ = ["readout"]


def readout(
    h: Tensor, molecule_offsets: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Mean pooling and LayerNorm; contract in `moltc_kernels.readout.naive.readout`."""
    return form(__name__, h, weight, bias).readout(h, molecule_offsets, weight, bias, eps)
