"""Aligned rows: where there is room behind a row, and that nobody looks at what stands there."""

import pytest
import torch

from moltc_kernels.alignment import aligned_width, empty_rows, rows_of
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
def test_rows_start_at_sixteen_bytes(width, dtype, expected):
    assert aligned_width(width, dtype.itemsize) == expected
    rows = empty_rows(torch.empty(0, dtype=dtype), 5, width)
    assert rows.shape == (5, width)
    assert rows.stride() == (expected, 1)
    assert rows_of(rows)[0] is rows
    assert rows_of(rows)[1] == expected


def test_three_dimensions():
    rows = empty_rows(torch.empty(0, dtype=HALF), 2, 3, 300)
    assert rows_of(rows) == (rows, 304)


@pytest.mark.parametrize(
    "rows",
    [
        torch.zeros(4, 300, dtype=HALF),
        torch.zeros(4, 320, dtype=HALF)[:, :300],
        torch.zeros(5, 304, dtype=HALF).flatten()[4 : 4 + 4 * 304].view(4, 304)[:, :300],
        torch.zeros(3 * 304 + 300, dtype=HALF).as_strided((4, 300), (304, 1)),  # no room at the end
        torch.zeros(300, 4, dtype=HALF).T,
        empty_rows(torch.empty(0, dtype=HALF), 4, 3, 300)[:, 0],
    ],
    ids=["contiguous", "wider", "shifted", "too short", "transposed", "every third"],
)
def test_all_others_are_made_contiguous(rows):
    got, stride = rows_of(rows)
    assert got.is_contiguous()
    assert stride == 300


def with_nan_behind(rows: torch.Tensor) -> torch.Tensor:
    aligned = empty_rows(rows, *rows.shape)
    aligned._base.fill_(float("nan"))
    return aligned.copy_(rows)


@pytest.mark.parametrize("dtype", [HALF, torch.bfloat16], ids=str)
def test_what_stands_behind_a_row_does_not_matter(dtype):
    batch, width = molecules([3, 40, 1]), 300
    torch.manual_seed(0)
    h = torch.randn(44, width).to(dtype)
    gain, shift = torch.randn(2, width).to(dtype)
    with poisoned():
        expected, offsets = readout.readout(h, batch.offsets, gain, shift, 1e-5)
        got, _ = readout.readout(with_nan_behind(h), batch.offsets, gain, shift, 1e-5)
    assert got.isfinite().all()
    assert torch.equal(got, expected)
    query = torch.randn(3, 8, 2, 16).to(dtype)
    layers = key_value(2, 16, width, dtype)
    with poisoned():
        plain = attention.cross_attention(query, expected.contiguous(), offsets, layers)
        aligned = attention.cross_attention(query, with_nan_behind(expected), offsets, layers)
    assert aligned.isfinite().all()
    assert torch.equal(aligned, plain)
