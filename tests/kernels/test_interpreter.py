"""Triton's interpreter: it runs the kernels, not child processes, and bfloat16 is correct."""

import os

import torch
import triton
import triton.language as tl

from moltc_kernels.dispatch import is_interpreted
from tests.kernels.interpreter import INTERPRET_ENV, interpreted_definitions

with interpreted_definitions():

    @triton.jit
    def copy_kernel(x_ptr, y_ptr, SIZE: tl.constexpr):
        offset = tl.arange(0, SIZE)
        x = tl.load(x_ptr + offset).to(tl.float32)
        tl.store(y_ptr + offset, x.to(y_ptr.dtype.element_ty))

    @triton.jit
    def dot_kernel(x_ptr, y_ptr, out_ptr, SIZE: tl.constexpr):
        row, column = tl.arange(0, SIZE)[:, None], tl.arange(0, SIZE)[None, :]
        offset = row * SIZE + column
        product = tl.dot(tl.load(x_ptr + offset), tl.load(y_ptr + offset))
        tl.store(out_ptr + offset, product)

    @triton.jit
    def count_kernel(x_ptr, out_ptr, SIZE: tl.constexpr):
        offset = tl.arange(0, SIZE)
        x = tl.load(x_ptr + offset)
        count = (x == 1).to(tl.int32)
        count += (x == 1).to(tl.int32)
        tl.store(out_ptr + offset, count.to(tl.float32).to(out_ptr.dtype.element_ty))


def test_interpreter_is_used_but_not_inherited_by_child_processes():
    assert is_interpreted()
    assert INTERPRET_ENV not in os.environ


def test_bfloat16_rounds_to_nearest_even():
    halfway = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8])  # rounded to 1 and 1 + 2**-6
    special = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 3.3e38, 1e-39])
    x = torch.cat([torch.randn(503), halfway, special])
    y = torch.empty(512, dtype=torch.bfloat16)
    copy_kernel[(1,)](x, y, SIZE=512)
    torch.testing.assert_close(y, x.bfloat16(), rtol=0, atol=0, equal_nan=True)
    back = torch.empty(512)
    copy_kernel[(1,)](y, back, SIZE=512)
    torch.testing.assert_close(back, y.float(), rtol=0, atol=0, equal_nan=True)


def test_bfloat16_products_are_accumulated_in_float32():
    x, y = torch.randn(2, 32, 32).bfloat16()
    out = torch.empty(32, 32)
    dot_kernel[(1,)](x, y, out, SIZE=32)
    torch.testing.assert_close(out, x.float() @ y.float())


def test_comparisons_convert_to_integers():
    x = torch.arange(16, dtype=torch.int32) % 2
    for dtype in (torch.bfloat16, torch.float32):
        out = torch.empty(16, dtype=dtype)
        count_kernel[(1,)](x, out, SIZE=16)
        assert out.tolist() == (2 * x).tolist()
