"""GIN aggregation in one launch, without an ``[E, dim]`` tensor of messages."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moltc_kernels.aggregate.naive import check_shapes
from moltc_kernels.launch import LaunchConfig, Target, target_of
from moltc_kernels.types import SELF_LOOP_CODE, BondCsr

_NVIDIA = LaunchConfig({"BLOCK_ATOMS": 32, "BLOCK_DIM": 64}, num_warps=4)

LAUNCH_CONFIGS: dict[Target, LaunchConfig] = {
    "sm_80": _NVIDIA,
    "sm_90": _NVIDIA,
    "sm_100": _NVIDIA,
    "gfx942": LaunchConfig({"BLOCK_ATOMS": 32, "BLOCK_DIM": 64}, num_warps=2),
}


def aggregate(h: Tensor, csr: BondCsr, bond_table: Tensor) -> Tensor:
    """Compute `moltc_kernels.aggregate.naive.aggregate` with a kernel; not differentiable."""
    check_shapes(h, csr, bond_table)
    h, bond_table = h.contiguous(), bond_table.contiguous()
    atoms, dim = h.shape
    out = torch.empty_like(h)
    if not out.numel():
        return out
    config = LAUNCH_CONFIGS[target_of(h)]
    blocks = config.blocks
    grid = (triton.cdiv(atoms, blocks["BLOCK_ATOMS"]), triton.cdiv(dim, blocks["BLOCK_DIM"]))
    offsets, source, code = (t.contiguous() for t in csr)
    aggregate_kernel[grid](
        h,
        bond_table,
        offsets,
        source,
        code,
        out,
        atoms,
        **constants(dim),
        **blocks,
        **config.options,
    )
    return out


def constants(dim: int) -> dict[str, int]:
    """Return the compile-time arguments other than block sizes.

    The row stride is one of them, so that the compiler can prove alignment and use wide loads.
    """
    return {"DIM": dim, "SELF_LOOP": SELF_LOOP_CODE}


@triton.jit(do_not_specialize=["num_atoms"])
def aggregate_kernel(  # type: ignore[no-untyped-def]
    h_ptr,  # [V, DIM]
    table_ptr,  # [codes, DIM]
    offsets_ptr,  # [V + 1]
    source_ptr,  # [E]
    code_ptr,  # [E]
    out_ptr,  # [V, DIM]
    num_atoms,
    DIM: tl.constexpr,
    SELF_LOOP: tl.constexpr,
    BLOCK_ATOMS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Compute one tile of the result per program.

    A program loops over its atoms' bonds in CSR order, so sums need no atomics and are
    reproducible. They are accumulated in float32.
    """
    row = tl.program_id(0).to(tl.int64) * BLOCK_ATOMS + tl.arange(0, BLOCK_ATOMS)
    column = tl.program_id(1) * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    row_mask = row < num_atoms
    column_mask = column < DIM
    begin = tl.load(offsets_ptr + row, mask=row_mask, other=0)
    end = tl.load(offsets_ptr + row + 1, mask=row_mask, other=0)

    tile_offset = row[:, None] * DIM + column[None, :]
    tile_mask = row_mask[:, None] & column_mask[None, :]
    total = tl.load(h_ptr + tile_offset, mask=tile_mask, other=0.0).to(tl.float32)
    loop = tl.load(table_ptr + SELF_LOOP * DIM + column, mask=column_mask, other=0.0)
    total += loop.to(tl.float32)[None, :]
    for step in range(tl.max(end - begin, axis=0)):
        bond = begin + step
        has_bond = bond < end
        source = tl.load(source_ptr + bond, mask=has_bond, other=0).to(tl.int64)
        code = tl.load(code_ptr + bond, mask=has_bond, other=0).to(tl.int64)
        mask = has_bond[:, None] & column_mask[None, :]
        neighbor_offset = source[:, None] * DIM + column[None, :]
        total += tl.load(h_ptr + neighbor_offset, mask=mask, other=0.0).to(tl.float32)
        code_offset = code[:, None] * DIM + column[None, :]
        total += tl.load(table_ptr + code_offset, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + tile_offset, total.to(out_ptr.dtype.element_ty), mask=tile_mask)
