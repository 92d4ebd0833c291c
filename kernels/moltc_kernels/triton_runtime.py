"""What all Triton kernels share on the host side. Imported only where a kernel may run."""

from __future__ import annotations

import torch
from triton import knobs

# `triton.jit` decides once, when a kernel is defined; so do we.
INTERPRETED: bool = bool(knobs.runtime.interpret)
"""The kernels run in Triton's interpreter (``TRITON_INTERPRET=1``): slow, any device."""


def dot_precision(dtype: torch.dtype) -> str:
    """How products of float32 tiles are computed; follows torch's own switch.

    Returns:
        ``ieee`` unless `torch.set_float32_matmul_precision` allows less, as for torch's own
        products; half precision has one way only.
    """
    if dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest":
        return "ieee"
    return "tf32"
