"""Which form of an operation runs: naive, the fast CPU form, or the Triton kernel.

``MOLTC_KERNELS=naive|cpu|triton`` overrides the choice, for tests, for measuring and for ruling a
kernel out when answers look odd.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Literal, cast, get_args

import torch
from torch import Tensor

Backend = Literal["naive", "cpu", "triton"]

VARIABLE = "MOLTC_KERNELS"


class BackendError(RuntimeError):
    """``MOLTC_KERNELS`` asks for something that does not exist or cannot run here."""


def form(room: str, *tensors: Tensor) -> ModuleType:
    """Import the form of an operation that runs for these arguments.

    Args:
        room: The operation's package, which has a module of each `Backend`'s name.
        *tensors: As `backend_for`'s.

    Raises:
        BackendError: As `backend_for`.
    """
    return importlib.import_module(f"{room}.{backend_for(*tensors)}")


def backend_for(*tensors: Tensor) -> Backend:
    """Choose the form for these arguments.

    Args:
        *tensors: All floating-point arguments; they are on one device.

    Returns:
        ``naive`` where a gradient is wanted (it is the only differentiable form) and for float64;
        else what ``MOLTC_KERNELS`` says; else ``triton`` on a GPU and ``cpu`` elsewhere.

    Raises:
        BackendError: If ``MOLTC_KERNELS`` has another value, or names a form that cannot run on
            the tensors' device.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen not in ("", *get_args(Backend)):
        raise BackendError(f"{VARIABLE} is {chosen!r}, expected {', '.join(get_args(Backend))}")
    wants_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if wants_gradient or any(t.dtype == torch.float64 for t in tensors):
        return "naive"
    on_gpu = tensors[0].is_cuda
    if chosen == "triton" and not on_gpu and not interpreted():
        raise BackendError(
            f"{VARIABLE}=triton, but the tensors are on {tensors[0].device}: Triton needs a GPU, "
            "or TRITON_INTERPRET=1 before the first kernel is imported"
        )
    if chosen == "cpu" and on_gpu:
        raise BackendError(f"{VARIABLE}=cpu, but the tensors are on {tensors[0].device}")
    if chosen:
        return cast(Backend, chosen)
    return "triton" if on_gpu else "cpu"


def interpreted() -> bool:
    """Whether our kernels run in Triton's interpreter, which takes tensors of any device."""
    from moltc_kernels.triton_runtime import INTERPRETED

    return INTERPRETED
