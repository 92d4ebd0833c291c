"""Selection of an implementation, and the environment variable that overrides it."""

import pytest
import torch

from moltc_kernels import BondCsr
from moltc_kernels.aggregate import aggregate
from moltc_kernels.dispatch import ImplementationError, implementation_for

FLOATS = torch.ones(2)


@pytest.fixture(autouse=True)
def unset_environment(monkeypatch):
    monkeypatch.delenv("MOLTC_KERNELS", raising=False)


class FakeGpuTensor:
    """Attributes of a CUDA tensor that the selection reads."""

    dtype, requires_grad, is_cuda, device = torch.float32, False, True, "cuda:0"


@pytest.mark.parametrize(
    ("tensor", "choice", "expected"),
    [
        (FLOATS, "", "cpu"),
        (FLOATS, "naive", "naive"),
        (FLOATS, "cpu", "cpu"),
        (FLOATS.double(), "", "naive"),
        (FLOATS.double(), "cpu", "naive"),
        (FLOATS.clone().requires_grad_(), "cpu", "naive"),
        (FakeGpuTensor, "", "triton"),
        (FakeGpuTensor, "naive", "naive"),
        (FakeGpuTensor, "triton", "triton"),
    ],
)
def test_implementation_for_arguments(tensor, choice, expected, monkeypatch):
    monkeypatch.setenv("MOLTC_KERNELS", choice)
    assert implementation_for(tensor) == expected


def test_gradient_of_any_argument_selects_naive_unless_disabled():
    needs_gradient = FLOATS.clone().requires_grad_()
    assert implementation_for(FLOATS, needs_gradient) == "naive"
    with torch.no_grad():
        assert implementation_for(FLOATS, needs_gradient) == "cpu"


def test_unknown_implementation_is_rejected(monkeypatch):
    monkeypatch.setenv("MOLTC_KERNELS", "cuda")
    with pytest.raises(ImplementationError, match="'cuda', expected naive, cpu, triton"):
        implementation_for(FLOATS)


def test_cpu_implementation_on_gpu_is_rejected(monkeypatch):
    monkeypatch.setenv("MOLTC_KERNELS", "cpu")
    with pytest.raises(ImplementationError, match="cpu, but the tensors are on cuda:0"):
        implementation_for(FakeGpuTensor)


def test_triton_without_gpu_is_rejected(monkeypatch):
    monkeypatch.setenv("MOLTC_KERNELS", "triton")
    monkeypatch.setattr("moltc_kernels.triton_runtime.INTERPRETED", False)
    csr = BondCsr(torch.tensor([0, 0]), torch.tensor([]).int(), torch.tensor([]).int())
    with pytest.raises(ImplementationError, match="needs a GPU, or TRITON_INTERPRET=1"):
        aggregate(torch.ones(1, 4), csr, torch.ones(18, 4))
