"""GIN aggregation in one launch: gather, bond table and self loop, no ``[E, dim]`` message."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moltc_kernels.aggregate.naive import check_shapes
from moltc_kernels.launch import Launch, Target, target_of
from moltc_kernels.types import SELF_LOOP_CODE, BondCsr

_NVIDIA = Launch({"BLOCK_ATOMS": 32, "BLOCK_DIM": 64}, num_warps=4)

LAUNCH: dict[Target, Launch] = {
    "sm_80": _NVIDIA,
    "sm_90": _NVIDIA,
    "sm_100": _NVIDIA,
    "gfx942": Launch({"BLOCK_ATOMS": 32, "BLOCK_DIM": 64}, num_warps=2),
}


def aggregate(h: Tensor, csr: BondCsr, bond_table: Tensor) -> Tensor:
    """As `moltc_kernels.aggregate.naive.aggregate`; not differentiable."""
    check_shapes(h, csr, bond_table)
    h, bond_table = h.contiguous(), bond_table.contiguous()
    atoms, dim = h.shape
    out = torch.empty_like(h)
    if not out.numel():
        return out
    launch = LAUNCH[target_of(h)]
    blocks = launch.blocks
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
        **launch.options,
    )
    return out


def constants(dim: int) -> dict[str, int]:
    """Compile-time arguments besides the blocks; a constant row stride lets loads be wide."""
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
    """A program owns a tile of the result and walks its atoms' bonds in CSR order: no atomics."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ATOMS + tl.arange(0, BLOCK_ATOMS)
    column = tl.program_id(1) * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    in_rows = row < num_atoms
    in_columns = column < DIM
    begin = tl.load(offsets_ptr + row, mask=in_rows, other=0)
    end = tl.load(offsets_ptr + row + 1, mask=in_rows, other=0)

    tile = row[:, None] * DIM + column[None, :]
    in_tile = in_rows[:, None] & in_columns[None, :]
    total = tl.load(h_ptr + tile, mask=in_tile, other=0.0).to(tl.float32)
    loop = tl.load(table_ptr + SELF_LOOP * DIM + column, mask=in_columns, other=0.0)
    total += loop.to(tl.float32)[None, :]
    for step in range(tl.max(end - begin, axis=0)):
        bond = begin + step
        more = bond < end
        source = tl.load(source_ptr + bond, mask=more, other=0).to(tl.int64)
        code = tl.load(code_ptr + bond, mask=more, other=0).to(tl.int64)
        live = more[:, None] & in_columns[None, :]
        neighbour = source[:, None] * DIM + column[None, :]
        total += tl.load(h_ptr + neighbour, mask=live, other=0.0).to(tl.float32)
        kind = code[:, None] * DIM + column[None, :]
        total += tl.load(table_ptr + kind, mask=live, other=0.0).to(tl.float32)
    tl.store(out_ptr + tile, total.to(out_ptr.dtype.element_ty), mask=in_tile)
