"""Ragged cross-attention, absorbed form: the tokens themselves are keys and values.

As `moltc_kernels.cross_attention.absorbed` explains, a query and head is a row of the tokens' own
width. The rows stay head-major, as the library's batched product leaves them: nothing is copied
between it, the kernel and the value layer.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from moltc_kernels.alignment import empty_rows, rows_of
from moltc_kernels.cross_attention.naive import KeyValue, check_shapes
from moltc_kernels.launch import Launch, Target, split_width, target_of
from moltc_kernels.triton_runtime import dot_precision

Precision = Literal["half", "tf32", "ieee"]
"""How products are computed: of half precision numbers, or one of two ways for float32."""

_HALF = Launch({"BLOCK_ROWS": 32, "BLOCK_TOKENS": 32}, num_warps=8)
_TF32 = Launch({"BLOCK_ROWS": 32, "BLOCK_TOKENS": 16}, num_warps=8)
# No tensor core: every thread multiplies on its own, which takes registers.
_IEEE = Launch({"BLOCK_ROWS": 16, "BLOCK_TOKENS": 16}, num_warps=8)

LAUNCH: dict[tuple[Target, Precision], Launch] = {
    ("sm_80", "half"): _HALF,
    ("sm_80", "tf32"): _TF32,
    ("sm_80", "ieee"): _IEEE,
    ("sm_90", "half"): _HALF,
    ("sm_90", "tf32"): _TF32,
    ("sm_90", "ieee"): _IEEE,
    ("sm_100", "half"): _HALF,
    ("sm_100", "tf32"): _TF32,
    ("sm_100", "ieee"): _IEEE,
    ("gfx942", "half"): Launch({"BLOCK_ROWS": 32, "BLOCK_TOKENS": 32}, num_warps=4),
    ("gfx942", "ieee"): Launch({"BLOCK_ROWS": 16, "BLOCK_TOKENS": 16}, num_warps=4),
}


def cross_attention(query: Tensor, tokens: Tensor, offsets: Tensor, layers: KeyValue) -> Tensor:
    """As `moltc_kernels.cross_attention.naive.cross_attention`; not differentiable."""
    check_shapes(query, tokens, offsets, layers)
    batch, queries, heads, dim = query.shape
    out = query.new_empty(batch * queries, heads, dim)
    if not out.numel():
        return out.view(query.shape)
    by_head = query.reshape(batch * queries, heads, dim).transpose(0, 1)  # heads x BQ x dim
    rows = empty_rows(query, heads, batch * queries, tokens.shape[1])
    torch.bmm(by_head, layers.key_weight.view(heads, dim, -1), out=rows)
    context = attend(rows, tokens, offsets.contiguous(), queries, dim**-0.5)
    value_weight = layers.value_weight.view(heads, dim, -1).transpose(1, 2)  # heads x width x dim
    torch.bmm(context, value_weight, out=out.transpose(0, 1))
    return out.add_(layers.value_bias.view(heads, dim)).view(query.shape)


def attend(rows: Tensor, tokens: Tensor, offsets: Tensor, queries: int, scale: float) -> Tensor:
    """Weighted sums of each molecule's tokens: ``softmax(rows tokens^T scale) tokens``.

    Args:
        rows: Absorbed queries, ``[heads, B * queries, width]``.
        tokens: ``[T, width]``.
        offsets: Where each molecule's tokens begin, ``[B + 1]`` integers.
        queries: Queries of a molecule.
        scale: Factor of the scores.

    Returns:
        ``[heads, B * queries, width]`` in ``rows``'s dtype, accumulated in float32.
    """
    heads, head_rows, width = rows.shape
    rows, stride = rows_of(rows)
    tokens, token_stride = rows_of(tokens)
    context = rows.new_empty(heads, head_rows, stride)[..., :width]
    precision = precision_of(rows)
    launch = LAUNCH[target_of(rows), precision]
    grid = (head_rows // queries, triton.cdiv(heads * queries, launch.blocks["BLOCK_ROWS"]))
    attend_kernel[grid](
        rows,
        tokens,
        offsets,
        context,
        head_rows,
        scale * math.log2(math.e),
        **constants(heads, queries, width, stride, token_stride, precision),
        **launch.blocks,
        **launch.options,
    )
    return context


def precision_of(tensor: Tensor) -> Precision:
    """How products are computed: half precision one way, float32 as torch's own switch says."""
    if tensor.dtype.itemsize == 2:
        return "half"
    # gfx942's matrix instructions take float32 as it is, and Triton offers no tf32 there.
    if target_of(tensor) == "gfx942" or dot_precision(tensor.dtype) == "ieee":
        return "ieee"
    return "tf32"


def constants(
    heads: int, queries: int, width: int, stride: int, token_stride: int, precision: Precision
) -> dict[str, int | str]:
    """Compile-time arguments besides the blocks."""
    left, right = split_width(width)
    return {
        "QUERIES": queries,
        "ROWS": heads * queries,
        "WIDTH": width,
        "STRIDE": stride,
        "TOKEN_STRIDE": token_stride,
        "LEFT": left,
        "RIGHT": right,
        "PRECISION": "ieee" if precision == "half" else precision,
    }


@triton.jit(do_not_specialize=["head_rows"])
def attend_kernel(  # type: ignore[no-untyped-def]
    rows_ptr,  # [heads, B * QUERIES, WIDTH], rows STRIDE apart
    tokens_ptr,  # [T, WIDTH], rows TOKEN_STRIDE apart
    offsets_ptr,  # [B + 1]
    context_ptr,  # as rows
    head_rows,  # B * QUERIES
    scale,  # times log2(e): the softmax is taken to base 2
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
    """A program owns some (head, query) rows of a molecule and passes its tokens once.

    The width is covered by a left and a right block (300 = 256 + 44 of 64). The softmax is online:
    running maximum, running sum, and sums of tokens that are rescaled when the maximum moves.
    """
    molecule = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    left = tl.arange(0, LEFT)
    right = LEFT + tl.arange(0, RIGHT)
    in_rows = (row < ROWS)[:, None]
    in_left = (left < WIDTH)[None, :]
    in_right = (right < WIDTH)[None, :]
    begin = tl.load(offsets_ptr + molecule).to(tl.int64)
    end = tl.load(offsets_ptr + molecule + 1).to(tl.int64)

    head = (row // QUERIES).to(tl.int64)
    place = (head * head_rows + molecule * QUERIES + row % QUERIES)[:, None] * STRIDE
    live_left = in_rows & (left < STRIDE)[None, :]
    live_right = in_rows & (right < STRIDE)[None, :]
    row_left = tl.load(rows_ptr + place + left[None, :], mask=live_left, other=0.0)
    row_right = tl.load(rows_ptr + place + right[None, :], mask=live_right, other=0.0)
    if LEFT > WIDTH:
        row_left = tl.where(in_left, row_left, 0.0)
    row_right = tl.where(in_right, row_right, 0.0)
    sum_left = tl.zeros([BLOCK_ROWS, LEFT], tl.float32)
    sum_right = tl.zeros([BLOCK_ROWS, RIGHT], tl.float32)
    top = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
    norm = tl.zeros([BLOCK_ROWS], tl.float32)

    for start in range(begin, end, BLOCK_TOKENS):
        token = start + tl.arange(0, BLOCK_TOKENS)
        in_tokens = token < end
        x_place = token[:, None] * TOKEN_STRIDE
        x_live_left = in_tokens[:, None] & (left < TOKEN_STRIDE)[None, :]
        x_live_right = in_tokens[:, None] & (right < TOKEN_STRIDE)[None, :]
        x_left = tl.load(tokens_ptr + x_place + left[None, :], mask=x_live_left, other=0.0)
        x_right = tl.load(tokens_ptr + x_place + right[None, :], mask=x_live_right, other=0.0)
        if LEFT > WIDTH:
            x_left = tl.where(in_left, x_left, 0.0)
        x_right = tl.where(in_right, x_right, 0.0)
        score = tl.dot(row_left, tl.trans(x_left), input_precision=PRECISION)
        score = tl.dot(row_right, tl.trans(x_right), score, input_precision=PRECISION)
        score = tl.where(in_tokens[None, :], score * scale, float("-inf"))
        # A tile has at least one token, so the new maximum is finite.
        new_top = tl.maximum(top, tl.max(score, axis=1))
        shrink = tl.exp2(top - new_top)
        weight = tl.exp2(score - new_top[:, None])
        norm = norm * shrink + tl.sum(weight, axis=1)
        top = new_top
        weight = weight.to(x_left.dtype)
        sum_left = tl.dot(weight, x_left, sum_left * shrink[:, None], input_precision=PRECISION)
        sum_right = tl.dot(weight, x_right, sum_right * shrink[:, None], input_precision=PRECISION)

    # A molecule without tokens has no weights: zeros rather than 0 / 0.
    factor = (1.0 / tl.where(norm > 0.0, norm, 1.0))[:, None]
    dtype = context_ptr.dtype.element_ty
    tl.store(context_ptr + place + left[None, :], (sum_left * factor).to(dtype), mask=live_left)
    tl.store(context_ptr + place + right[None, :], (sum_right * factor).to(dtype), mask=live_right)
