"""Read-out of the graph encoder: a mean token and the atoms, normalised."""

from __future__ import annotations

from torch import Tensor

from moltc_kernels.dispatch import backend_for
from moltc_kernels.readout import cpu, naive

__all__ = ["readout"]


def readout(
    h: Tensor, molecule_offsets: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Mean pooling and LayerNorm; contract in `moltc_kernels.readout.naive.readout`."""
    match backend_for(h, weight, bias):
        case "naive":
            return naive.readout(h, molecule_offsets, weight, bias, eps)
        case "cpu":
            return cpu.readout(h, molecule_offsets, weight, bias, eps)
        case "triton":
            from moltc_kernels.readout import triton

            return triton.readout(h, molecule_offsets, weight, bias, eps)
