"""Rows that start at multiples of 16 bytes, so that a thread loads 128 bits at once.

300 numbers of half precision are 600 bytes, which only 64-bit loads fit: such rows get room for
304. What stands in that room is never used: kernels that load it put zeros in its place.
"""

from __future__ import annotations

from torch import Tensor

VECTOR_BYTES = 16
"""The widest load of a thread, and what the library's fastest products want rows aligned to."""


def round_up(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple


def aligned_width(width: int, itemsize: int) -> int:
    """Numbers from the start of one aligned row to the next."""
    return round_up(width, VECTOR_BYTES // itemsize)


def empty_rows(like: Tensor, *shape: int) -> Tensor:
    """Uninitialised, with aligned rows: a view of the first ``shape[-1]`` columns.

    Args:
        like: Gives dtype and device.
        *shape: Of the result; the last is the width.
    """
    stride = aligned_width(shape[-1], like.dtype.itemsize)
    return like.new_empty(*shape[:-1], stride)[..., : shape[-1]]


def rows_of(x: Tensor) -> tuple[Tensor, int]:
    """The tensor as a kernel may read it, and its row stride.

    Args:
        x: ``[..., width]``.

    Returns:
        ``x`` itself if its rows are as `empty_rows` makes them, all of whose memory may be read;
        otherwise contiguous.
    """
    stride = aligned_width(x.shape[-1], x.dtype.itemsize)
    dense = [stride]
    for size in reversed(x.shape[1:-1]):
        dense.append(dense[-1] * size)
    whole = (
        x.storage_offset() + dense[-1] * x.shape[0] <= x.untyped_storage().nbytes() // x.itemsize
    )
    if x.stride() == (*reversed(dense), 1) and whole and x.storage_offset() % stride == 0:
        return x, stride
    return x.contiguous(), x.shape[-1]
