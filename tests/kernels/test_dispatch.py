"""Which form runs, and that the environment can say otherwise."""

import pytest
import torch

from moltc_kernels import BondCsr
from moltc_kernels.aggregate import aggregate
from moltc_kernels.dispatch import BackendError, backend_for

FLOATS = torch.ones(2)


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    monkeypatch.delenv("MOLTC_KERNELS", raising=False)


class OnGpu:
    """As much of a CUDA tensor as the choice looks at."""

    dtype, requires_grad, is_cuda, device = torch.float32, False, True, "cuda:0"


@pytest.mark.parametrize(
    ("tensor", "chosen", "expected"),
    [
        (FLOATS, "", "cpu"),
        (FLOATS, "naive", "naive"),
        (FLOATS, "cpu", "cpu"),
        (FLOATS.double(), "", "naive"),
        (FLOATS.double(), "cpu", "naive"),
        (FLOATS.clone().requires_grad_(), "cpu", "naive"),
        (OnGpu, "", "triton"),
        (OnGpu, "naive", "naive"),
        (OnGpu, "triton", "triton"),
    ],
)
def test_choice(tensor, chosen, expected, monkeypatch):
    monkeypatch.setenv("MOLTC_KERNELS", chosen)
    assert backend_for(tensor) == expected


def test_gradients_of_any_argument_count_unless_they_are_off():
    wanted = FLOATS.clone().requires_grad_()
    assert backend_for(FLOATS, wanted) == "naive"
    with torch.no_grad():
        assert backend_for(FLOATS, wanted) == "cpu"


def test_an_unknown_name_is_refused(monkeypatch):
    monkeypatch.setenv("MOLTC_KERNELS", "cuda")
    with pytest.raises(BackendError, match="'cuda', expected naive, cpu, triton"):
        backend_for(FLOATS)


def test_the_cpu_form_on_a_gpu_is_refused(monkeypatch):
    monkeypatch.setenv("MOLTC_KERNELS", "cpu")
    with pytest.raises(BackendError, match="cpu, but the tensors are on cuda:0"):
        backend_for(OnGpu)


def test_triton_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setenv("MOLTC_KERNELS", "triton")
    monkeypatch.setattr("moltc_kernels.triton_runtime.INTERPRETED", False)
    csr = BondCsr(torch.tensor([0, 0]), torch.tensor([]).int(), torch.tensor([]).int())
    with pytest.raises(BackendError, match="needs a GPU, or TRITON_INTERPRET=1"):
        aggregate(torch.ones(1, 4), csr, torch.ones(18, 4))
