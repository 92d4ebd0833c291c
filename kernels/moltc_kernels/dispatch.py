"""Selection of an operation's implementation: ``naive``, ``cpu`` or ``triton``.

``MOLTC_KERNELS=naive|cpu|triton`` overrides the selection for tests and measurements, and helps to
find out whether a kernel causes an unexpected result.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Literal, cast, get_args

import torch
from torch import Tensor

Implementation = Literal["naive", "cpu", "triton"]

KERNELS_ENV = "MOLTC_KERNELS"
"""Environment variable that overrides the selection."""


class ImplementationError(RuntimeError):
    """``MOLTC_KERNELS`` names an implementation that does not exist or cannot run here."""


def select_implementation(op: str, *tensors: Tensor) -> ModuleType:
    """Import the implementation of an operation that suits its arguments.

    Args:
        op: Package of the operation, with one module per `Implementation`.
        *tensors: All floating-point arguments of the operation, on one device.

    Raises:
        ImplementationError: If ``MOLTC_KERNELS`` does not name an implementation, or names one
            that cannot run on the tensors' device.
    """
    return importlib.import_module(f"{op}.{implementation_for(*tensors)}")


def implementation_for(*tensors: Tensor) -> Implementation:
    """Choose the implementation that suits the arguments of an operation.

    Args:
        *tensors: All floating-point arguments of the operation, on one device.

    Returns:
        ``naive`` if a gradient is required (no other implementation is differentiable) and for
        float64; otherwise the value of ``MOLTC_KERNELS``; by default ``triton`` on a GPU and
        ``cpu`` elsewhere.

    Raises:
        ImplementationError: If ``MOLTC_KERNELS`` does not name an implementation, or names one
            that cannot run on the tensors' device.
    """
    choice = os.environ.get(KERNELS_ENV, "")
    if choice not in ("", *get_args(Implementation)):
        raise ImplementationError(
            f"{KERNELS_ENV} is {choice!r}, expected {', '.join(get_args(Implementation))}"
        )
    needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if needs_gradient or any(t.dtype == torch.float64 for t in tensors):
        return "naive"
    on_gpu = tensors[0].is_cuda
    if choice == "triton" and not on_gpu and not is_interpreted():
        raise ImplementationError(
            f"{KERNELS_ENV}=triton, but the tensors are on {tensors[0].device}: Triton needs a "
            "GPU, or TRITON_INTERPRET=1 before the first kernel is imported"
        )
    if choice == "cpu" and on_gpu:
        raise ImplementationError(f"{KERNELS_ENV}=cpu, but the tensors are on {tensors[0].device}")
    if choice:
        return cast(Implementation, choice)
    return "triton" if on_gpu else "cpu"


def is_interpreted() -> bool:
    """Tell whether the kernels run in Triton's interpreter, which takes tensors of any device."""
    from moltc_kernels.triton_runtime import INTERPRETED

    return INTERPRETED
