"""Triton kernels, interpreted, against the naive operations in float64."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moltc_kernels.aggregate import aggregate
from moltc_kernels.aggregate import naive as aggregate_naive
from moltc_kernels.aggregate import triton as aggregate_triton
from moltc_kernels.cross_attention import cross_attention
from moltc_kernels.cross_attention import naive as attention_naive
from moltc_kernels.cross_attention import triton as attention_triton
from moltc_kernels.dispatch import KERNELS_ENV
from moltc_kernels.readout import naive as readout_naive
from moltc_kernels.readout import readout
from moltc_kernels.readout import triton as readout_triton
from tests.kernels.cases import (
    BOND_CODES,
    DTYPES,
    ROUNDOFF,
    Molecules,
    batches,
    double,
    key_value,
    molecules,
    offsets_of,
    poisoned,
    rms_ratio,
)

FEW = settings(max_examples=8, deadline=None)
DIMS = st.sampled_from([8, 60, 63, 128, 300, 304, 320])


class Operation(NamedTuple):
    """Operation with its implementations, random arguments and error bounds."""

    name: str
    triton: object
    naive: object
    public: object
    half: float  # bound of the RMS ratio in half precision, in units of roundoff
    single: float  # bound in float32, where sums add errors

    def arguments(self, batch: Molecules, dim: int, dtype: torch.dtype) -> tuple:
        torch.manual_seed(dim)
        rows = torch.randn(len(batch.atoms), dim).to(dtype)
        if self.name == "aggregate":
            return rows, batch.bonds, torch.randn(BOND_CODES, dim).to(dtype)
        if self.name == "readout":
            gain, shift = torch.randn(2, dim).to(dtype)
            return rows, batch.offsets, gain, shift, 1e-5
        query = torch.randn(len(batch.sizes), 8, 12, 64).to(dtype)
        return query, rows, batch.offsets, key_value(12, 64, dim, dtype)

    def error(self, arguments: tuple) -> float:
        """Compute the RMS ratio of the kernel's result, with unwritten memory poisoned."""
        with poisoned():
            result = first_tensor(self.triton(*arguments))
        assert result.stride(-1) == 1
        exact = [double(a) if isinstance(a, Tensor | tuple) else a for a in arguments]
        return rms_ratio(result, first_tensor(self.naive(*exact)))

    def bound(self, dtype: torch.dtype) -> float:
        return (self.single if dtype == torch.float32 else self.half) * ROUNDOFF[dtype]


def first_tensor(result: object) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


AGGREGATE = Operation(
    "aggregate", aggregate_triton.aggregate, aggregate_naive.aggregate, aggregate, 0.8, 6
)
READOUT = Operation("readout", readout_triton.readout, readout_naive.readout, readout, 0.8, 6)
ATTENTION = Operation(
    "attention",
    attention_triton.cross_attention,
    attention_naive.cross_attention,
    cross_attention,
    1,
    6,
)
OPERATIONS = pytest.mark.parametrize(
    "operation", [AGGREGATE, READOUT, ATTENTION], ids=lambda operation: operation.name
)


@OPERATIONS
@DTYPES
@FEW
@given(batch=batches(max_size=40, max_batch=6), dim=DIMS)
def test_kernel_matches_naive_on_random_batches(operation, dtype, batch, dim):
    assert operation.error(operation.arguments(batch, dim, dtype)) <= operation.bound(dtype)


@OPERATIONS
@DTYPES
@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ([], "none"),
        ([1], "none"),
        ([5, 1, 64], "none"),
        ([120], "star"),
        ([300], "rings"),
        ([1 + i % 5 for i in range(70)], "rings"),
        ([31, 32, 33], "rings"),
    ],
    ids=["empty", "one atom", "no bonds", "star", "300 atoms", "70 molecules", "tile edges"],
)
def test_kernel_matches_naive_on_awkward_batches(operation, dtype, sizes, shape):
    arguments = operation.arguments(molecules(sizes, shape), 60, dtype)
    assert operation.error(arguments) <= operation.bound(dtype)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NaN inside numpy
@OPERATIONS
@DTYPES
def test_kernel_is_deterministic_and_independent_of_other_molecules(operation, dtype):
    batch = molecules([17, 33, 9])
    arguments = operation.arguments(batch, 300, dtype)
    assert operation.error(arguments) <= operation.bound(dtype)
    result = first_tensor(operation.triton(*arguments))
    assert torch.equal(result, first_tensor(operation.triton(*arguments)))
    # NaN in the other molecules does not reach the middle one.
    rows = arguments[1 if operation is ATTENTION else 0]
    rows[:17], rows[50:] = float("nan"), float("nan")
    with_nan = first_tensor(operation.triton(*arguments))
    middle = {
        "aggregate": slice(17, 50),
        "readout": slice(18, 52),
        "attention": slice(1, 2),
    }[operation.name]
    assert torch.equal(with_nan[middle], result[middle])
    assert with_nan[: middle.start].isnan().all()


def test_readout_returns_token_offsets():
    for sizes in ([], [3], [2, 9, 1]):
        batch = molecules(sizes, "none")
        arguments = READOUT.arguments(batch, 8, torch.float32)
        with poisoned():
            _, offsets = readout_triton.readout(*arguments)
        assert offsets.dtype == torch.int64
        assert offsets.tolist() == offsets_of([size + 1 for size in sizes]).tolist()


@OPERATIONS
def test_kernel_accepts_strided_tensors_and_int64_offsets(operation):
    batch = molecules([7, 12])
    batch = batch._replace(offsets=batch.offsets.long())
    arguments = operation.arguments(batch, 60, torch.float32)

    def strided(value):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return torch.stack([value, value.flip(0)], dim=-1)[..., 0]

    strided_arguments = tuple(strided(a) for a in arguments)
    assert not all(a.is_contiguous() for a in strided_arguments if isinstance(a, Tensor))
    assert operation.error(strided_arguments) <= operation.bound(torch.float32)


@OPERATIONS
@DTYPES
def test_environment_variable_selects_kernel(operation, dtype, monkeypatch):
    arguments = operation.arguments(molecules([6, 3]), 60, dtype)
    expected = first_tensor(operation.triton(*arguments))
    monkeypatch.setenv(KERNELS_ENV, "triton")
    with poisoned():
        result = first_tensor(operation.public(*arguments))
    assert torch.equal(result, expected)
    # Without the kernel the call fails, so the result above came from the kernel.
    monkeypatch.delattr(operation.triton.__module__ + "." + operation.triton.__name__)
    with pytest.raises(AttributeError):
        operation.public(*arguments)


@pytest.mark.parametrize("queries", [1, 3, 8])
@pytest.mark.parametrize("heads", [1, 5])
def test_attention_accepts_any_number_of_rows(heads, queries):
    torch.manual_seed(0)
    query, rows = torch.randn(2, queries, heads, 16), torch.randn(9, 24)
    layers = key_value(heads, 16, 24, torch.float32)
    arguments = (query, rows, offsets_of([4, 5]), layers)
    assert ATTENTION.error(arguments) <= ATTENTION.bound(torch.float32)


def test_attention_is_accurate_for_large_scores():
    query = torch.full((1, 8, 2, 16), 300.0)
    tokens = torch.randn(40, 24) * 30
    arguments = (query, tokens, offsets_of([40]), key_value(2, 16, 24, torch.float32))
    assert ATTENTION.error(arguments) <= 1e-4
