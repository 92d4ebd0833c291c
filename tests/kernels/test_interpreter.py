"""The interpreter that stands for a GPU: chosen for our kernels only, and right in bfloat16."""

import os

import torch
import triton
import triton.language as tl

from moltc_kernels.dispatch import interpreted
from tests.kernels.interpreter import VARIABLE, interpreting

with interpreting():

    @triton.jit
    def copy_kernel(x_ptr, y_ptr, SIZE: tl.constexpr):
        place = tl.arange(0, SIZE)
        x = tl.load(x_ptr + place).to(tl.float32)
        tl.store(y_ptr + place, x.to(y_ptr.dtype.element_ty))

    @triton.jit
    def dot_kernel(x_ptr, y_ptr, out_ptr, SIZE: tl.constexpr):
        row, column = tl.arange(0, SIZE)[:, None], tl.arange(0, SIZE)[None, :]
        place = row * SIZE + column
        product = tl.dot(tl.load(x_ptr + place), tl.load(y_ptr + place))
        tl.store(out_ptr + place, product)

    @triton.jit
    def count_kernel(x_ptr, out_ptr, SIZE: tl.constexpr):
        place = tl.arange(0, SIZE)
        x = tl.load(x_ptr + place)
        count = (x == 1).to(tl.int32)
        count += (x == 1).to(tl.int32)
        tl.store(out_ptr + place, count.to(tl.float32).to(out_ptr.dtype.element_ty))


def test_kernels_are_interpreted_and_child_processes_are_not():
    assert interpreted()
    assert VARIABLE not in os.environ


def test_bfloat16_rounds_to_nearest_even():
    halfway = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8])  # to 1 and to 1 + 2**-6: even last bits
    special = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 3.3e38, 1e-39])
    x = torch.cat([torch.randn(503), halfway, special])
    y = torch.empty(512, dtype=torch.bfloat16)
    copy_kernel[(1,)](x, y, SIZE=512)
    torch.testing.assert_close(y, x.bfloat16(), rtol=0, atol=0, equal_nan=True)
    back = torch.empty(512)
    copy_kernel[(1,)](y, back, SIZE=512)
    torch.testing.assert_close(back, y.float(), rtol=0, atol=0, equal_nan=True)


def test_bfloat16_products_are_of_values_and_summed_in_float32():
    x, y = torch.randn(2, 32, 32).bfloat16()
    out = torch.empty(32, 32)
    dot_kernel[(1,)](x, y, out, SIZE=32)
    torch.testing.assert_close(out, x.float() @ y.float())


def test_comparisons_become_integers_that_add_up():
    x = torch.arange(16, dtype=torch.int32) % 2
    for dtype in (torch.bfloat16, torch.float32):
        out = torch.empty(16, dtype=dtype)
        count_kernel[(1,)](x, out, SIZE=16)
        assert out.tolist() == (2 * x).tolist()
