"""Aligned rows, which start at multiples of 16 bytes so that a thread can load 128 bits at once.

A row of 300 half-precision numbers has 600 bytes, which allows only 64-bit loads, so its stride is
padded to 304 numbers. The padding has undefined content: kernels that load it replace it with
zeros.
"""

from __future__ import annotations

from torch import Tensor

VECTOR_BYTES = 16
"""Width of a thread's widest load, and the row alignment that the fastest matrix products of
cuBLAS and hipBLAS require."""


def round_up(size: int, multiple: int) -> int:
    """Round up to the next multiple."""
    return -(-size // multiple) * multiple


def aligned_width(width: int, itemsize: int) -> int:
    """Compute the row stride, in numbers, of aligned rows.

    Args:
        width: Number of columns.
        itemsize: Bytes of a number.
    """
    return round_up(width, VECTOR_BYTES // itemsize)


def empty_aligned_rows(like: Tensor, *shape: int) -> Tensor:
    """Allocate an uninitialized tensor with aligned rows.

    Args:
        like: Tensor with the dtype and device of the result.
        *shape: Shape of the result; the last dimension is the width.

    Returns:
        View of the first ``shape[-1]`` columns of a tensor whose width is `aligned_width`.
    """
    stride = aligned_width(shape[-1], like.dtype.itemsize)
    return like.new_empty(*shape[:-1], stride)[..., : shape[-1]]


def with_row_stride(x: Tensor) -> tuple[Tensor, int]:
    """Return a tensor that a kernel can read with a single row stride, and that stride.

    Args:
        x: Rows, ``[..., width]``.

    Returns:
        ``x`` itself if it has the layout of `empty_aligned_rows` and the memory of all its rows,
        padding included, may be read; otherwise a contiguous copy. The stride is in numbers.
    """
    stride = aligned_width(x.shape[-1], x.dtype.itemsize)
    dense_strides = [stride]
    for size in reversed(x.shape[1:-1]):
        dense_strides.append(dense_strides[-1] * size)
    # The padding behind the last row must lie inside the storage.
    end = x.storage_offset() + dense_strides[-1] * x.shape[0]
    is_readable = end <= x.untyped_storage().nbytes() // x.itemsize
    is_dense = x.stride() == (*reversed(dense_strides), 1)
    if is_dense and is_readable and x.storage_offset() % stride == 0:
        return x, stride
    return x.contiguous(), x.shape[-1]
