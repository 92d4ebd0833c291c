"""Ragged cross-attention with a kernel in which the tokens themselves are keys and values.

The key layer is absorbed into the queries (`moltc_kernels.cross_attention.absorbed`), so that each
query and head is a row of the tokens' width. The rows stay head-major, the layout of the batched
matrix products before and after the kernel, so nothing is copied in between.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from moltc_kernels.alignment import empty_aligned_rows, with_row_stride
from moltc_kernels.cross_attention.naive import KeyValue, check_shapes
from moltc_kernels.launch import LaunchConfig, Target, split_width, target_of
from moltc_kernels.triton_runtime import dot_precision

Precision = Literal["half", "tf32", "ieee"]
"""Arithmetic of products: half-precision inputs, or float32 as tf32 or exactly (IEEE)."""

_HALF = LaunchConfig({"BLOCK_ROWS": 32, "BLOCK_TOKENS": 32}, num_warps=8)
_TF32 = LaunchConfig({"BLOCK_ROWS": 32, "BLOCK_TOKENS": 16}, num_warps=8)
# IEEE float32 products cannot use tensor cores; computing them in threads takes more registers.
_IEEE = LaunchConfig({"BLOCK_ROWS": 16, "BLOCK_TOKENS": 16}, num_warps=8)

LAUNCH_CONFIGS: dict[tuple[Target, Precision], LaunchConfig] = {
    ("sm_80", "half"): _HALF,
    ("sm_80", "tf32"): _TF32,
    ("sm_80", "ieee"): _IEEE,
    ("sm_90", "half"): _HALF,
    ("sm_90", "tf32"): _TF32,
    ("sm_90", "ieee"): _IEEE,
    ("sm_100", "half"): _HALF,
    ("sm_100", "tf32"): _TF32,
    ("sm_100", "ieee"): _IEEE,
    ("gfx942", "half"): LaunchConfig({"BLOCK_ROWS": 32, "BLOCK_TOKENS": 32}, num_warps=4),
    ("gfx942", "ieee"): LaunchConfig({"BLOCK_ROWS": 16, "BLOCK_TOKENS": 16}, num_warps=4),
}


def cross_attention(query: Tensor, tokens: Tensor, offsets: Tensor, layers: KeyValue) -> Tensor:
    """Compute `moltc_kernels.cross_attention.naive.cross_attention`; not differentiable."""
    check_shapes(query, tokens, offsets, layers)
    batch, queries, heads, dim = query.shape
    out = query.new_empty(batch * queries, heads, dim)
    if not out.numel():
        return out.view(query.shape)
    by_head = query.reshape(batch * queries, heads, dim).transpose(0, 1)  # heads x BQ x dim
    rows = empty_aligned_rows(query, heads, batch * queries, tokens.shape[1])
    torch.bmm(by_head, layers.key_weight.view(heads, dim, -1), out=rows)
    context = attend(rows, tokens, offsets.contiguous(), queries, dim**-0.5)
    value_weight = layers.value_weight.view(heads, dim, -1).transpose(1, 2)  # heads x width x dim
    torch.bmm(context, value_weight, out=out.transpose(0, 1))
    return out.add_(layers.value_bias.view(heads, dim)).view(query.shape)


def attend(rows: Tensor, tokens: Tensor, offsets: Tensor, queries: int, scale: float) -> Tensor:
    """Sum each molecule's tokens with softmax weights: ``softmax(rows tokens^T scale) tokens``.

    Args:
        rows: Absorbed queries, ``[heads, B * queries, width]``.
        tokens: Concatenated tokens of all molecules, ``[T, width]``.
        offsets: Offsets of the molecules' tokens, ``[B + 1]`` integers.
        queries: Number of queries of a molecule.
        scale: Factor of the scores.

    Returns:
        ``[heads, B * queries, width]`` in ``rows``'s dtype, accumulated in float32.
    """
    heads, head_rows, width = rows.shape
    rows, stride = with_row_stride(rows)
    tokens, token_stride = with_row_stride(tokens)
    context = rows.new_empty(heads, head_rows, stride)[..., :width]
    precision = precision_of(rows)
    config = LAUNCH_CONFIGS[target_of(rows), precision]
    grid = (head_rows // queries, triton.cdiv(heads * queries, config.blocks["BLOCK_ROWS"]))
    attend_kernel[grid](
        rows,
        tokens,
        offsets,
        context,
        head_rows,
        scale * math.log2(math.e),
        **constants(heads, queries, width, stride, token_stride, precision),
        **config.blocks,
        **config.options,
    )
    return context


def precision_of(tensor: Tensor) -> Precision:
    """Choose the arithmetic of products; float32 follows `torch.set_float32_matmul_precision`."""
    if tensor.dtype.itemsize == 2:
        return "half"
    # gfx942 has matrix instructions for IEEE float32, and Triton does not support tf32 on it.
    if target_of(tensor) == "gfx942" or dot_precision(tensor.dtype) == "ieee":
        return "ieee"
    return "tf32"


def constants(
    heads: int, queries: int, width: int, stride: int, token_stride: int, precision: Precision
) -> dict[str, int | str]:
    """Return the compile-time arguments other than block sizes."""
    left, right = split_width(width)
    return {
        "QUERIES": queries,
        "ROWS": heads * queries,
        "WIDTH": width,
        "STRIDE": stride,
        "TOKEN_STRIDE": token_stride,
        "LEFT": left,
        "RIGHT": right,
        # `tl.dot` ignores the precision of half-precision inputs.
        "PRECISION": "ieee" if precision == "half" else precision,
    }


@triton.jit(do_not_specialize=["head_rows"])
def attend_kernel(  # type: ignore[no-untyped-def]
    rows_ptr,  # [heads, B * QUERIES, WIDTH], rows STRIDE apart
    tokens_ptr,  # [T, WIDTH], rows TOKEN_STRIDE apart
    offsets_ptr,  # [B + 1]
    context_ptr,  # [heads, B * QUERIES, WIDTH], rows STRIDE apart
    head_rows,  # B * QUERIES
    scale,  # includes log2(e), since the softmax uses exp2
    QUERIES: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    STRIDE: tl.constexpr,
    TOKEN_STRIDE: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    """Compute BLOCK_ROWS (head, query) rows of one molecule per program.

    A program reads the molecule's tokens once, with an online softmax: it keeps a running maximum,
    a running sum of weights and sums of tokens, and rescales both when the maximum increases. The
    sums are float32. The width is covered by a left and a right block (300 = 256 + 44 of 64). Loads
    include the padding of aligned rows, which is replaced by zeros.
    """
    molecule = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    left = tl.arange(0, LEFT)
    right = LEFT + tl.arange(0, RIGHT)
    row_mask = (row < ROWS)[:, None]
    left_mask = (left < WIDTH)[None, :]
    right_mask = (right < WIDTH)[None, :]
    begin = tl.load(offsets_ptr + molecule).to(tl.int64)
    end = tl.load(offsets_ptr + molecule + 1).to(tl.int64)

    head = (row // QUERIES).to(tl.int64)
    row_offset = (head * head_rows + molecule * QUERIES + row % QUERIES)[:, None] * STRIDE
    row_left_mask = row_mask & (left < STRIDE)[None, :]
    row_right_mask = row_mask & (right < STRIDE)[None, :]
    row_left = tl.load(rows_ptr + row_offset + left[None, :], mask=row_left_mask, other=0.0)
    row_right = tl.load(rows_ptr + row_offset + right[None, :], mask=row_right_mask, other=0.0)
    if LEFT > WIDTH:
        row_left = tl.where(left_mask, row_left, 0.0)
    row_right = tl.where(right_mask, row_right, 0.0)
    sum_left = tl.zeros([BLOCK_ROWS, LEFT], tl.float32)
    sum_right = tl.zeros([BLOCK_ROWS, RIGHT], tl.float32)
    running_max = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
    weight_sum = tl.zeros([BLOCK_ROWS], tl.float32)

    for start in range(begin, end, BLOCK_TOKENS):
        token = start + tl.arange(0, BLOCK_TOKENS)
        token_mask = token < end
        token_offset = token[:, None] * TOKEN_STRIDE
        token_left_mask = token_mask[:, None] & (left < TOKEN_STRIDE)[None, :]
        token_right_mask = token_mask[:, None] & (right < TOKEN_STRIDE)[None, :]
        x_left = tl.load(tokens_ptr + token_offset + left[None, :], mask=token_left_mask, other=0.0)
        x_right = tl.load(
            tokens_ptr + token_offset + right[None, :], mask=token_right_mask, other=0.0
        )
        if LEFT > WIDTH:
            x_left = tl.where(left_mask, x_left, 0.0)
        x_right = tl.where(right_mask, x_right, 0.0)
        score = tl.dot(row_left, tl.trans(x_left), input_precision=PRECISION)
        score = tl.dot(row_right, tl.trans(x_right), score, input_precision=PRECISION)
        score = tl.where(token_mask[None, :], score * scale, float("-inf"))
        # Every tile has at least one token, so the new maximum is finite.
        new_max = tl.maximum(running_max, tl.max(score, axis=1))
        rescale = tl.exp2(running_max - new_max)
        weight = tl.exp2(score - new_max[:, None])
        weight_sum = weight_sum * rescale + tl.sum(weight, axis=1)
        running_max = new_max
        weight = weight.to(x_left.dtype)
        sum_left = tl.dot(weight, x_left, sum_left * rescale[:, None], input_precision=PRECISION)
        sum_right = tl.dot(weight, x_right, sum_right * rescale[:, None], input_precision=PRECISION)

    # A molecule without tokens has no weights; its rows become zeros instead of 0 / 0.
    factor = (1.0 / tl.where(weight_sum > 0.0, weight_sum, 1.0))[:, None]
    dtype = context_ptr.dtype.element_ty
    tl.store(
        context_ptr + row_offset + left[None, :], (sum_left * factor).to(dtype), mask=row_left_mask
    )
    tl.store(
        context_ptr + row_offset + right[None, :],
        (sum_right * factor).to(dtype),
        mask=row_right_mask,
    )
