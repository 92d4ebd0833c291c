"""Every operation on a GPU against the naive implementation in float64; run `pytest -m gpu`.

Kernels are compiled in such a run, not interpreted (``tests/conftest.py``).
"""

import pytest
import torch
from torch import Tensor

from moltc_kernels.aggregate import aggregate
from moltc_kernels.aggregate import naive as aggregate_naive
from moltc_kernels.cross_attention import cross_attention
from moltc_kernels.cross_attention import naive as attention_naive
from moltc_kernels.dispatch import KERNELS_ENV, implementation_for, is_interpreted
from moltc_kernels.gin_stack import fused, gin_stack
from moltc_kernels.gin_stack import naive as gin_naive
from moltc_kernels.readout import naive as readout_naive
from moltc_kernels.readout import readout
from tests.kernels.cases import (
    BOND_CODES,
    DTYPES,
    ROUNDOFF,
    convert_weights,
    double,
    gin_weights,
    key_value,
    molecules,
    poisoned,
    rms_ratio,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

DEVICE = "cuda"
SIZES = pytest.mark.parametrize(
    "sizes",
    [[], [1], [30], [20, 64, 3], [300, 7], [1 + i % 50 for i in range(200)]],
    ids=["empty", "one atom", "one molecule", "small", "large", "many"],
)
DIM = pytest.mark.parametrize("dim", [60, 63, 300, 320])


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    monkeypatch.delenv(KERNELS_ENV, raising=False)
    assert not is_interpreted(), "run GPU tests on their own: pytest -m gpu"


def on_gpu(value):
    if isinstance(value, Tensor):
        return value.to(DEVICE)
    return type(value)(*map(on_gpu, value)) if isinstance(value, tuple) else value


def check_operation(public, naive, arguments, bound: float) -> None:
    arguments = [on_gpu(a) for a in arguments]
    exact = [double(a) if isinstance(a, Tensor | tuple) else a for a in arguments]
    with poisoned():
        result = public(*arguments)
    expected = naive(*exact)
    repeated = public(*arguments)
    if isinstance(result, tuple):
        assert torch.equal(result[1], expected[1])
        result, expected, repeated = result[0], expected[0], repeated[0]
    assert result.device.type == DEVICE
    assert rms_ratio(result, expected) <= bound
    assert torch.equal(result, repeated)


def test_gpu_tensor_selects_triton():
    assert implementation_for(torch.zeros(1, device=DEVICE)) == "triton"


@SIZES
@DIM
@DTYPES
def test_aggregate_matches_naive(sizes, dim, dtype):
    batch = molecules(sizes)
    arguments = (torch.randn(len(batch.atoms), dim).to(dtype), batch.bonds)
    table = torch.randn(BOND_CODES, dim).to(dtype)
    check_operation(aggregate, aggregate_naive.aggregate, (*arguments, table), 6 * ROUNDOFF[dtype])


@SIZES
@DIM
@DTYPES
def test_readout_matches_naive(sizes, dim, dtype):
    batch = molecules(sizes, "none")
    gain, shift = torch.randn(2, dim).to(dtype)
    arguments = (torch.randn(len(batch.atoms), dim).to(dtype), batch.offsets, gain, shift, 1e-5)
    check_operation(readout, readout_naive.readout, arguments, 10 * ROUNDOFF[dtype])


@SIZES
@DIM
@DTYPES
def test_cross_attention_matches_naive(sizes, dim, dtype):
    batch = molecules(sizes, "none")
    query = torch.randn(len(sizes), 8, 12, 64).to(dtype)
    tokens = torch.randn(len(batch.atoms), dim).to(dtype)
    arguments = (query, tokens, batch.offsets, key_value(12, 64, dim, dtype))
    check_operation(
        cross_attention, attention_naive.cross_attention, arguments, 20 * ROUNDOFF[dtype]
    )


@SIZES
@DTYPES
@pytest.mark.parametrize(("dim", "inner"), [(60, 120), (300, 600)])
@pytest.mark.parametrize("has_details", [False, True], ids=["published", "details"])
def test_gin_stack_matches_naive(sizes, dtype, dim, inner, has_details):
    batch = molecules(sizes).to(DEVICE)
    weights = gin_weights(dim, inner, 5, dtype, has_details=has_details)
    weights = convert_weights(weights, lambda tensor: tensor.to(DEVICE))
    expected = gin_naive.gin_stack(*batch, double(weights))
    with poisoned():
        result = gin_stack(*batch, weights)
    assert rms_ratio(result, expected) <= 40 * ROUNDOFF[dtype]
    assert torch.equal(result, gin_stack(*batch, weights))
    tiles = fused.select_tiles(batch.atoms, batch.offsets, weights) if sizes else None
    expects_one_launch = dtype != torch.float32 and sizes in ([1], [30], [20, 64, 3])
    assert (tiles is not None) == expects_one_launch


@DTYPES
def test_gin_stack_can_be_captured_in_cuda_graph(dtype):
    batch, weights = molecules([20, 40]).to(DEVICE), gin_weights(60, 120, 2, dtype)
    weights = convert_weights(weights, lambda tensor: tensor.to(DEVICE))
    # Compile the kernels of both implementations before capturing.
    gin_stack(*batch, weights)
    batch_large = molecules([65, 40]).to(DEVICE)
    gin_stack(*batch_large, weights)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gin_stack(*batch, weights)
    graph.replay()
    expected = gin_naive.gin_stack(*batch, double(weights))
    assert rms_ratio(captured, expected) <= 40 * ROUNDOFF[dtype]
