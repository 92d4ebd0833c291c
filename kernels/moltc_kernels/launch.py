"""Launch configurations of kernels: block sizes and compiler options per device family.

Each kernel has one table of configurations. Both its launcher and the ahead-of-time build read it,
so the code that is checked without a GPU is the code that runs on one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Target = Literal["sm_80", "sm_90", "sm_100", "gfx942"]
"""Device family: A100, H100, B200, MI300X."""

TARGETS: tuple[Target, ...] = get_args(Target)


@dataclass(frozen=True)
class LaunchConfig:
    """Block sizes and compiler options of one kernel on one device family."""

    blocks: Mapping[str, int]
    """Block sizes, by the name of the kernel's compile-time argument."""

    num_warps: int
    num_stages: int = 1

    @cached_property
    def options(self) -> dict[str, Any]:
        """Compiler options, for Triton's launch and for ``triton.compile``."""
        return {
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            # Triton 3.9 fuses multiplications and additions only if this is set; older releases
            # fused them by default.
            "enable_fp_fusion": True,
        }


def target_of(tensor: Tensor) -> Target:
    """Choose the device family whose launch configurations suit a tensor's device.

    Returns:
        The device's own family. NVIDIA devices without one (sm_86, sm_89, sm_120, ...) get
        sm_80, whose configurations need the least resources; any AMD device gets gfx942. Tensors
        on CPU, where Triton's interpreter runs, get sm_90.
    """
    if not tensor.is_cuda:
        return "sm_90"
    if torch.version.hip is not None:
        return "gfx942"
    major, _ = torch.cuda.get_device_capability(tensor.device)
    families: dict[int, Target] = {9: "sm_90", 10: "sm_100"}
    return families.get(major, "sm_80")


def split_width(width: int) -> tuple[int, int]:
    """Cover a width with two blocks, since Triton's block sizes are powers of two.

    Args:
        width: Number of columns, at least 1.

    Returns:
        Sizes of the left and right block, each at least 16, the smallest that tensor cores
        take. 300 columns are padded to 256 + 64 rather than to 512.
    """
    left = max(16, 1 << (width - 1).bit_length() >> 1)
    return left, max(16, 1 << (width - left - 1).bit_length()) if width > left else 16
