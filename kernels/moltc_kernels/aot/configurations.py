"""Configurations of all shipped kernels: published sizes, all dtypes, all device families."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from moltc_kernels.aggregate import triton as aggregate
from moltc_kernels.alignment import VECTOR_BYTES, aligned_width, round_up
from moltc_kernels.cross_attention import triton as attention
from moltc_kernels.gin_stack import fused
from moltc_kernels.gin_stack.molecule_kernel import gin_molecule_kernel
from moltc_kernels.launch import TARGETS, LaunchConfig, Target
from moltc_kernels.readout import triton as readout

DType = Literal["fp32", "bf16", "fp16"]

ITEMSIZE: dict[DType, int] = {"fp32": 4, "bf16": 2, "fp16": 2}

LAYERS, DIM, INNER = 5, 300, 600
HEADS, QUERIES = 12, 8


@dataclass(frozen=True)
class KernelConfiguration:
    """One compilation: a kernel, its specialization, and expectations on the result."""

    kernel: str
    variant: str
    dtype: DType
    target: Target
    function: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    launch: LaunchConfig
    wide_rows: bool
    """Whether rows start at multiples of 16 bytes, so that 128-bit loads are expected."""
    tensor_cores: bool
    """Whether matrix instructions are expected."""

    @property
    def name(self) -> str:
        """Unique and stable name, which is the key in the budget."""
        return f"{self.kernel}/{self.variant}/{self.dtype}/{self.target}"


def configurations() -> dict[str, KernelConfiguration]:
    """List all configurations by name."""
    listed = [
        configuration
        for target in TARGETS
        for dtype in get_args(DType)
        for configuration in _configurations_of(target, dtype)
    ]
    return {configuration.name: configuration for configuration in listed}


def _configurations_of(target: Target, dtype: DType) -> Iterator[KernelConfiguration]:
    for dim in sorted({DIM, aligned_width(DIM, ITEMSIZE[dtype])}):
        yield _aggregate(target, dtype, dim)
    yield _readout(target, dtype)
    for precision in get_args(attention.Precision):
        is_half = precision == "half"
        if is_half == (dtype != "fp32") and (target, precision) in attention.LAUNCH_CONFIGS:
            yield _attention(target, dtype, precision)
    if dtype != "fp32":
        for tiles in get_args(fused.Tiles):
            yield _gin(target, dtype, tiles, has_details=False)
            yield _gin(target, dtype, tiles, has_details=True)


def _aggregate(target: Target, dtype: DType, dim: int) -> KernelConfiguration:
    launch = aggregate.LAUNCH_CONFIGS[target]
    return KernelConfiguration(
        "aggregate",
        f"dim{dim}",
        dtype,
        target,
        aggregate.aggregate_kernel,
        _pointers(dtype, "h", "table", "out")
        | _pointers("i32", "offsets", "source", "code")
        | {"num_atoms": "i32"},
        aggregate.constants(dim) | dict(launch.blocks),
        launch,
        wide_rows=dim * ITEMSIZE[dtype] % VECTOR_BYTES == 0,
        tensor_cores=False,
    )


def _readout(target: Target, dtype: DType) -> KernelConfiguration:
    launch, stride = readout.LAUNCH_CONFIGS[target], aligned_width(DIM, ITEMSIZE[dtype])
    return KernelConfiguration(
        "readout",
        f"dim{DIM}",
        dtype,
        target,
        readout.readout_kernel,
        _pointers(dtype, "h", "weight", "bias", "tokens")
        | _pointers("i32", "offsets")
        | _pointers("i64", "token_offsets")
        | {"eps": "fp32"},
        readout.constants(DIM, stride, stride) | dict(launch.blocks),
        launch,
        wide_rows=True,
        tensor_cores=False,
    )


def _attention(target: Target, dtype: DType, precision: attention.Precision) -> KernelConfiguration:
    launch = attention.LAUNCH_CONFIGS[target, precision]
    stride = aligned_width(DIM, ITEMSIZE[dtype])
    return KernelConfiguration(
        "attention",
        f"width{DIM}-{precision}",
        dtype,
        target,
        attention.attend_kernel,
        _pointers(dtype, "rows", "tokens", "context")
        | _pointers("i64", "offsets")
        | {"head_rows": "i32", "scale": "fp32"},
        attention.constants(HEADS, QUERIES, DIM, stride, stride, precision) | dict(launch.blocks),
        launch,
        wide_rows=True,
        # AMD has matrix instructions for IEEE float32.
        tensor_cores=precision != "ieee" or target == "gfx942",
    )


def _gin(
    target: Target, dtype: DType, tiles: fused.Tiles, *, has_details: bool
) -> KernelConfiguration:
    launch = fused.LAUNCH_CONFIGS[target, tiles]
    inner = round_up(INNER, fused.INNER_MULTIPLE)
    stride = aligned_width(DIM, ITEMSIZE[dtype])
    return KernelConfiguration(
        "gin",
        f"atoms{tiles * fused.TILE_ATOMS}" + ("-details" if has_details else ""),
        dtype,
        target,
        gin_molecule_kernel,
        _pointers(dtype, "atom_table", "detail_table", "bond_tables")
        | _pointers(dtype, "up", "up_bias", "down", "down_bias", "out")
        | _pointers("i32", "atoms", "bond_offsets", "source", "code", "molecule_offsets"),
        fused.constants(LAYERS, DIM, stride, inner, "ieee", has_details=has_details)
        | dict(launch.blocks),
        launch,
        wide_rows=True,
        tensor_cores=True,
    )


def _pointers(dtype: str, *names: str) -> dict[str, str]:
    return {f"{name}_ptr": f"*{dtype}" for name in names}
