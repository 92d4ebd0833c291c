"""Aligned rows: their strides, and that the content of the padding does not matter."""

import pytest
import torch

from moltc_kernels.alignment import aligned_width, empty_aligned_rows, with_row_stride
from moltc_kernels.cross_attention import triton as attention
from moltc_kernels.readout import triton as readout
from tests.kernels.cases import key_value, molecules, poisoned

HALF = torch.float16


@pytest.mark.parametrize(
    ("width", "dtype", "expected"),
    [
        (300, torch.float32, 300),
        (301, torch.float32, 304),
        (300, HALF, 304),
        (304, HALF, 304),
        (8, torch.bfloat16, 8),
        (7, torch.bfloat16, 8),
    ],
)
def test_rows_are_aligned_to_sixteen_bytes(width, dtype, expected):
    assert aligned_width(width, dtype.itemsize) == expected
    rows = empty_aligned_rows(torch.empty(0, dtype=dtype), 5, width)
    assert rows.shape == (5, width)
    assert rows.stride() == (expected, 1)
    assert with_row_stride(rows)[0] is rows
    assert with_row_stride(rows)[1] == expected


def test_rows_of_three_dimensions_are_aligned():
    rows = empty_aligned_rows(torch.empty(0, dtype=HALF), 2, 3, 300)
    assert with_row_stride(rows) == (rows, 304)


@pytest.mark.parametrize(
    "rows",
    [
        torch.zeros(4, 300, dtype=HALF),
        torch.zeros(4, 320, dtype=HALF)[:, :300],
        torch.zeros(5, 304, dtype=HALF).flatten()[4 : 4 + 4 * 304].view(4, 304)[:, :300],
        torch.zeros(3 * 304 + 300, dtype=HALF).as_strided((4, 300), (304, 1)),  # last row unpadded
        torch.zeros(300, 4, dtype=HALF).T,
        empty_aligned_rows(torch.empty(0, dtype=HALF), 4, 3, 300)[:, 0],
    ],
    ids=["contiguous", "wider", "shifted", "too short", "transposed", "every third"],
)
def test_other_layouts_are_made_contiguous(rows):
    result, stride = with_row_stride(rows)
    assert result.is_contiguous()
    assert stride == 300


def with_nan_padding(rows: torch.Tensor) -> torch.Tensor:
    aligned = empty_aligned_rows(rows, *rows.shape)
    aligned._base.fill_(float("nan"))
    return aligned.copy_(rows)


@pytest.mark.parametrize("dtype", [HALF, torch.bfloat16], ids=str)
def test_kernels_ignore_content_of_padding(dtype):
    batch, width = molecules([3, 40, 1]), 300
    torch.manual_seed(0)
    h = torch.randn(44, width).to(dtype)
    gain, shift = torch.randn(2, width).to(dtype)
    with poisoned():
        expected, offsets = readout.readout(h, batch.offsets, gain, shift, 1e-5)
        result, _ = readout.readout(with_nan_padding(h), batch.offsets, gain, shift, 1e-5)
    assert result.isfinite().all()
    assert torch.equal(result, expected)
    query = torch.randn(3, 8, 2, 16).to(dtype)
    layers = key_value(2, 16, width, dtype)
    with poisoned():
        plain = attention.cross_attention(query, expected.contiguous(), offsets, layers)
        aligned = attention.cross_attention(query, with_nan_padding(expected), offsets, layers)
    assert aligned.isfinite().all()
    assert torch.equal(aligned, plain)
