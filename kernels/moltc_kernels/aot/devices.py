"""Resources of each device family's multiprocessors, and the occupancy they allow."""

from __future__ import annotations

from dataclasses import dataclass

from triton.backends.compiler import GPUTarget

from moltc_kernels.launch import Target

KIB = 1024


@dataclass(frozen=True)
class Device:
    """Resources of a multiprocessor (NVIDIA: SM, AMD: CU), from the vendors' documentation."""

    name: str
    target: GPUTarget
    max_shared: int
    """Bytes of shared memory that one block may use; compilation does not check this."""
    shared: int
    """Bytes of shared memory per multiprocessor."""
    shared_reserved: int
    """Bytes of shared memory that the system reserves per block."""
    partition_registers: int
    """32-bit registers of each of the four partitions, per lane of a warp."""
    register_unit: int
    """Granularity in which registers are allocated to a lane."""
    max_warps: int
    """Largest number of resident warps (AMD: waves) per multiprocessor."""


DEVICES: dict[Target, Device] = {
    "sm_80": Device(
        "A100", GPUTarget("cuda", 80, 32), 163 * KIB, 164 * KIB, KIB, 16384 // 32, 8, 64
    ),
    "sm_90": Device(
        "H100", GPUTarget("cuda", 90, 32), 227 * KIB, 228 * KIB, KIB, 16384 // 32, 8, 64
    ),
    "sm_100": Device(
        "B200", GPUTarget("cuda", 100, 32), 227 * KIB, 228 * KIB, KIB, 16384 // 32, 8, 64
    ),
    "gfx942": Device("MI300X", GPUTarget("hip", "gfx942", 64), 64 * KIB, 64 * KIB, 0, 512, 8, 32),
}

PARTITIONS = 4
"""Partitions of a multiprocessor, each with its own registers."""


def occupancy(device: Device, registers: int, shared_bytes: int, num_warps: int) -> float:
    """Estimate the share of a multiprocessor's warps that can be resident.

    Args:
        device: Device on which the kernel runs.
        registers: Registers per thread.
        shared_bytes: Bytes of shared memory per block.
        num_warps: Warps per block.

    Returns:
        Number between 0 and 1, limited by registers, shared memory or the number of warps.
    """
    rounded = -(-max(registers, 1) // device.register_unit) * device.register_unit
    by_registers = PARTITIONS * (device.partition_registers // rounded) // num_warps
    by_shared = device.shared // max(1, shared_bytes + device.shared_reserved)
    blocks = min(by_registers, by_shared, device.max_warps // num_warps)
    return blocks * num_warps / device.max_warps
