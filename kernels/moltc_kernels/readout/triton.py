"""Mean pooling and LayerNorm in one launch that reads and writes every row once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moltc_kernels.alignment import empty_aligned_rows, with_row_stride
from moltc_kernels.launch import LaunchConfig, Target, target_of
from moltc_kernels.readout.naive import check_shapes

_NVIDIA = LaunchConfig({"BLOCK_ATOMS": 8}, num_warps=4)

LAUNCH_CONFIGS: dict[Target, LaunchConfig] = {
    "sm_80": _NVIDIA,
    "sm_90": _NVIDIA,
    "sm_100": _NVIDIA,
    "gfx942": LaunchConfig({"BLOCK_ATOMS": 8}, num_warps=4),
}


def readout(
    h: Tensor, molecule_offsets: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Compute `moltc_kernels.readout.naive.readout` with a kernel; not differentiable.

    The tokens have aligned rows (`moltc_kernels.alignment`).
    """
    check_shapes(h, weight, bias)
    atoms, dim = h.shape
    batch = molecule_offsets.shape[0] - 1
    tokens = empty_aligned_rows(h, atoms + batch, dim)
    if not batch:
        return tokens, molecule_offsets.long()
    token_offsets = torch.empty(batch + 1, dtype=torch.int64, device=h.device)
    config = LAUNCH_CONFIGS[target_of(h)]
    h, stride = with_row_stride(h)
    readout_kernel[(batch,)](
        h,
        molecule_offsets.contiguous(),
        weight.contiguous(),
        bias.contiguous(),
        tokens,
        token_offsets,
        eps,
        **constants(dim, stride, tokens.stride(0)),
        **config.blocks,
        **config.options,
    )
    return tokens, token_offsets


def constants(dim: int, stride: int, token_stride: int) -> dict[str, int]:
    """Return the compile-time arguments other than block sizes.

    Row strides are among them, so that the compiler can prove alignment and use wide loads.
    """
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
    """Process one molecule per program: normalize its atoms tile by tile, then their mean.

    Sums, means and variances are float32. Loads include the padding of aligned rows, which is
    replaced by zeros.
    """
    molecule = tl.program_id(0).to(tl.int64)
    begin = tl.load(offsets_ptr + molecule).to(tl.int64)
    end = tl.load(offsets_ptr + molecule + 1).to(tl.int64)
    if molecule == 0:
        tl.store(token_offsets_ptr, begin)
    tl.store(token_offsets_ptr + molecule + 1, end + molecule + 1)

    column = tl.arange(0, BLOCK_DIM)
    column_mask = column < DIM
    weight = tl.load(weight_ptr + column, mask=column_mask, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + column, mask=column_mask, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK_DIM], tl.float32)
    for start in range(begin, end, BLOCK_ATOMS):
        atom = start + tl.arange(0, BLOCK_ATOMS)
        atom_mask = (atom < end)[:, None]
        offset = atom[:, None] * STRIDE + column[None, :]
        h = tl.load(h_ptr + offset, mask=atom_mask & (column < STRIDE)[None, :], other=0.0)
        h = tl.where(column_mask[None, :], h, 0.0).to(tl.float32)
        total += tl.sum(h, axis=0)
        normalized = normalize(h, column_mask[None, :], eps, DIM) * weight[None, :] + bias[None, :]
        token = (atom + molecule + 1)[:, None] * TOKEN_STRIDE + column[None, :]
        tl.store(
            tokens_ptr + token,
            normalized.to(tokens_ptr.dtype.element_ty),
            mask=atom_mask & (column < TOKEN_STRIDE)[None, :],
        )
    mean = (total / (end - begin).to(tl.float32))[None, :]
    normalized = normalize(mean, column_mask[None, :], eps, DIM) * weight[None, :] + bias[None, :]
    token = (begin + molecule) * TOKEN_STRIDE + column[None, :]
    tl.store(
        tokens_ptr + token,
        normalized.to(tokens_ptr.dtype.element_ty),
        mask=(column < TOKEN_STRIDE)[None, :],
    )


@triton.jit
def normalize(rows, column_mask, eps, DIM: tl.constexpr):  # type: ignore[no-untyped-def]
    """Shift and scale rows to mean 0 and variance 1 over the unmasked columns.

    The variance is computed from centered values (two passes over registers), which is more
    accurate than the difference of two sums.
    """
    mean = tl.sum(rows, axis=1) / DIM
    centered = tl.where(column_mask, rows - mean[:, None], 0.0)
    variance = tl.sum(centered * centered, axis=1) / DIM
    return centered * tl.rsqrt(variance + eps)[:, None]
