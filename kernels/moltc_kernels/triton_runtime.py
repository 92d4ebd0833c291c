"""Host-side helpers of all Triton kernels; imported only where a kernel may run."""

from __future__ import annotations

import torch
from triton import knobs

# `triton.jit` reads the setting once, when a kernel is defined, so this module does the same.
INTERPRETED: bool = bool(knobs.runtime.interpret)
"""Whether kernels run in Triton's interpreter (``TRITON_INTERPRET=1``): slow, on any device."""


def dot_precision(dtype: torch.dtype) -> str:
    """Choose the ``input_precision`` of ``tl.dot`` for tiles of a dtype.

    The default of ``tl.dot`` is tf32; this function follows torch's setting instead, whose default
    is full float32.

    Returns:
        ``tf32`` for float32 if `torch.set_float32_matmul_precision` allows it, else ``ieee``.
        Half precision ignores the setting.
    """
    if dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest":
        return "ieee"
    return "tf32"
