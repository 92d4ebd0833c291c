"""What a kernel may use on each device, and how many of it fit one multiprocessor."""

from __future__ import annotations

from dataclasses import dataclass

from triton.backends.compiler import GPUTarget

from moltc_kernels.launch import Target

KIB = 1024


@dataclass(frozen=True)
class Device:
    """Limits of a multiprocessor (NVIDIA: SM, AMD: CU), from the vendors' documentation."""

    name: str
    target: GPUTarget
    max_shared: int
    """Bytes of shared memory that one block may have; compilation does not check it."""
    shared: int
    """Bytes of shared memory of a multiprocessor."""
    shared_reserved: int
    """Bytes of it that the system takes for each block."""
    partition_registers: int
    """32-bit registers of each of its four partitions, per lane of a warp."""
    register_unit: int
    """Registers are given to a warp's lanes in multiples of this."""
    max_warps: int
    """Warps (AMD: waves) of a multiprocessor."""


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


def occupancy(device: Device, registers: int, shared_bytes: int, num_warps: int) -> float:
    """Estimate which share of a multiprocessor's warps can be resident.

    Args:
        device: Where the kernel runs.
        registers: Of a thread.
        shared_bytes: Of a block.
        num_warps: Of a block.

    Returns:
        Between 0 and 1, bound by registers, shared memory or the number of warps.
    """
    rounded = -(-max(registers, 1) // device.register_unit) * device.register_unit
    by_registers = PARTITIONS * (device.partition_registers // rounded) // num_warps
    by_shared = device.shared // max(1, shared_bytes + device.shared_reserved)
    blocks = min(by_registers, by_shared, device.max_warps // num_warps)
    return blocks * num_warps / device.max_warps
