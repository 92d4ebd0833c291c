"""How kernels are launched: block sizes and compiler options, per family of devices.

Each kernel has one table of these, read by its launcher and by the ahead-of-time build, so what is
checked without a GPU is what runs on one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Target = Literal["sm_80", "sm_90", "sm_100", "gfx942"]

TARGETS: tuple[Target, ...] = get_args(Target)


@dataclass(frozen=True)
class Launch:
    """One row of a kernel's table."""

    blocks: Mapping[str, int]
    """Block sizes, by the name of the kernel's compile-time argument."""

    num_warps: int
    num_stages: int = 1

    @cached_property
    def options(self) -> dict[str, Any]:
        """As Triton takes them, for a launch and for a compilation."""
        return {
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            # Off by default in Triton 3.9; older releases had it on.
            "enable_fp_fusion": True,
        }


def target_of(tensor: Tensor) -> Target:
    """The family whose launch parameters suit the device a tensor is on.

    Returns:
        Devices without an own family (sm_86, sm_89, sm_120, ...) get the most modest NVIDIA one,
        any AMD device gets gfx942's. In the interpreter, which has no device, sm_90.
    """
    if not tensor.is_cuda:
        return "sm_90"
    if torch.version.hip is not None:
        return "gfx942"
    major, _ = torch.cuda.get_device_capability(tensor.device)
    families: dict[int, Target] = {9: "sm_90", 10: "sm_100"}
    return families.get(major, "sm_80")


def split_width(width: int) -> tuple[int, int]:
    """Cover a width with two blocks whose sizes are powers of two, as Triton wants them.

    Args:
        width: Columns, at least 1.

    Returns:
        Left and right block, each at least 16, the least a tensor core takes. 300 is 256 + 64
        rather than 512: a third of the padded columns goes.
    """
    left = max(16, 1 << (width - 1).bit_length() >> 1)
    return left, max(16, 1 << (width - left - 1).bit_length()) if width > left else 16
