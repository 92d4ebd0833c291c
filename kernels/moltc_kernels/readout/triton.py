"""Mean pooling and LayerNorm in one launch: every row is read once and written once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moltc_kernels.alignment import empty_rows, rows_of
from moltc_kernels.launch import Launch, Target, target_of
from moltc_kernels.readout.naive import check_shapes

_NVIDIA = Launch({"BLOCK_ATOMS": 8}, num_warps=4)

LAUNCH: dict[Target, Launch] = {
    "sm_80": _NVIDIA,
    "sm_90": _NVIDIA,
    "sm_100": _NVIDIA,
    "gfx942": Launch({"BLOCK_ATOMS": 8}, num_warps=4),
}


def readout(
    h: Tensor, molecule_offsets: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """As `moltc_kernels.readout.naive.readout`, with aligned rows; not differentiable."""
    check_shapes(h, weight, bias)
    atoms, dim = h.shape
    batch = molecule_offsets.shape[0] - 1
    tokens = empty_rows(h, atoms + batch, dim)
    if not batch:
        return tokens, molecule_offsets.long()
    token_offsets = torch.empty(batch + 1, dtype=torch.int64, device=h.device)
    launch = LAUNCH[target_of(h)]
    h, stride = rows_of(h)
    readout_kernel[(batch,)](
        h,
        molecule_offsets.contiguous(),
        weight.contiguous(),
        bias.contiguous(),
        tokens,
        token_offsets,
        eps,
        **constants(dim, stride, tokens.stride(0)),
        **launch.blocks,
        **launch.options,
    )
    return tokens, token_offsets


def constants(dim: int, stride: int, token_stride: int) -> dict[str, int]:
    """Compile-time arguments besides the blocks; a constant row stride lets loads be wide."""
    return {
        "DIM": dim,
        "STRIDE": stride,
        "TOKEN_STRIDE": token_stride,
        "BLOCK_DIM": triton.next_power_of_2(dim),
    }


@triton.jit
def readout_kernel(  # type: ignore[no-untyped-def]
    h_ptr,  # [V, DIM], rows STRIDE apart
    offsets_ptr,  # [B + 1]
    weight_ptr,  # [DIM]
    bias_ptr,  # [DIM]
    tokens_ptr,  # [V + B, DIM], rows TOKEN_STRIDE apart
    token_offsets_ptr,  # [B + 1]
    eps,
    DIM: tl.constexpr,
    STRIDE: tl.constexpr,
    TOKEN_STRIDE: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_ATOMS: tl.constexpr,
):
    """A program owns a molecule; its atoms pass by in tiles and leave their sum behind."""
    molecule = tl.program_id(0).to(tl.int64)
    begin = tl.load(offsets_ptr + molecule).to(tl.int64)
    end = tl.load(offsets_ptr + molecule + 1).to(tl.int64)
    if molecule == 0:
        tl.store(token_offsets_ptr, begin)
    tl.store(token_offsets_ptr + molecule + 1, end + molecule + 1)

    column = tl.arange(0, BLOCK_DIM)
    in_columns = column < DIM
    weight = tl.load(weight_ptr + column, mask=in_columns, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + column, mask=in_columns, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK_DIM], tl.float32)
    for start in range(begin, end, BLOCK_ATOMS):
        atom = start + tl.arange(0, BLOCK_ATOMS)
        live = (atom < end)[:, None]
        place = atom[:, None] * STRIDE + column[None, :]
        h = tl.load(h_ptr + place, mask=live & (column < STRIDE)[None, :], other=0.0)
        h = tl.where(in_columns[None, :], h, 0.0).to(tl.float32)
        total += tl.sum(h, axis=0)
        normal = normalise(h, in_columns[None, :], eps, DIM) * weight[None, :] + bias[None, :]
        token = (atom + molecule + 1)[:, None] * TOKEN_STRIDE + column[None, :]
        tl.store(
            tokens_ptr + token,
            normal.to(tokens_ptr.dtype.element_ty),
            mask=live & (column < TOKEN_STRIDE)[None, :],
        )
    mean = (total / (end - begin).to(tl.float32))[None, :]
    normal = normalise(mean, in_columns[None, :], eps, DIM) * weight[None, :] + bias[None, :]
    token = (begin + molecule) * TOKEN_STRIDE + column[None, :]
    tl.store(
        tokens_ptr + token,
        normal.to(tokens_ptr.dtype.element_ty),
        mask=(column < TOKEN_STRIDE)[None, :],
    )


@triton.jit
def normalise(rows, in_columns, eps, DIM: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rows with mean 0 and variance 1 over the columns that count; two passes, in registers."""
    mean = tl.sum(rows, axis=1) / DIM
    centred = tl.where(in_columns, rows - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, axis=1) / DIM
    return centred * tl.rsqrt(variance + eps)[:, None]
