"""Inference on folded weights equals the modules and never uses outdated weights."""

import copy

import pytest
import torch

from moltc_kernels.gin_stack import fold_batch_norm
from moltc_vllm.chem import canonical_key, graph_of
from moltc_vllm.models import BatchMolGraph, GraphEncoderConfig
from moltc_vllm.models.graph_encoder import GraphEncoder
from moltc_vllm.models.molecule_encoder import initialize_molecule_weights
from tests.molecules import DRUGS


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    encoder = GraphEncoder(GraphEncoderConfig(hidden_size=60, num_layers=3)).eval()
    initialize_molecule_weights(encoder, std=0.2)
    for layer in encoder.layers:
        layer.norm.running_mean.normal_()
        layer.norm.running_var.uniform_(0.1, 2.0)
    return encoder


@pytest.fixture(scope="module")
def batch():
    return BatchMolGraph.from_graphs([graph_of(canonical_key(s)) for s in DRUGS.values()])


def folded_and_modules(encoder, batch):
    """Atom states on folded weights, and from the modules in float64."""
    with torch.no_grad():
        folded = encoder.atom_states(batch)
    # With gradients enabled the modules run one by one.
    modules = copy.deepcopy(encoder).double().atom_states(batch)
    return folded.double(), modules.detach()


def relative_error(encoder, batch) -> float:
    folded, modules = folded_and_modules(encoder, batch)
    return float((folded - modules).norm() / modules.norm())


def test_folded_inference_equals_modules(encoder, batch):
    assert relative_error(encoder, batch) < 1e-6


def test_folding_small_variance_keeps_precision():
    linear, norm = torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8).eval()
    norm.running_mean.normal_()
    norm.running_var.fill_(1e-9)
    weight, bias = fold_batch_norm(linear, norm)
    x = torch.randn(50, 8)
    exact = copy.deepcopy(norm).double()(copy.deepcopy(linear).double()(x.double()))
    got = x @ weight.T + bias
    assert (got - exact).norm() < 1e-6 * exact.norm()


def test_batch_norm_without_statistics_is_refused():
    with pytest.raises(ValueError, match="running statistics"):
        fold_batch_norm(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2, track_running_stats=False))


def scale_weights(encoder):
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(1.5)


def test_training_drops_folded_weights(encoder, batch):
    before, _ = folded_and_modules(encoder, batch)
    encoder.train()
    scale_weights(encoder)
    encoder.eval()
    after, _ = folded_and_modules(encoder, batch)
    assert not torch.allclose(after, before)
    assert relative_error(encoder, batch) < 1e-6


@pytest.mark.parametrize("assign", [False, True])
def test_loading_drops_folded_weights(encoder, batch, assign):
    other = copy.deepcopy(encoder)
    scale_weights(other)
    folded_and_modules(encoder, batch)
    # Load through a parent module, as for checkpoints.
    torch.nn.ModuleDict({"a": encoder}).load_state_dict(
        {f"a.{key}": value for key, value in other.state_dict().items()}, assign=assign
    )
    assert torch.equal(folded_and_modules(encoder, batch)[0], folded_and_modules(other, batch)[0])
    assert relative_error(encoder, batch) < 1e-6


def test_converting_drops_folded_weights(encoder, batch):
    folded_and_modules(encoder, batch)
    torch.nn.ModuleDict({"a": encoder}).bfloat16()
    with torch.no_grad():
        assert encoder.atom_states(batch).dtype == torch.bfloat16
    encoder.float()
    assert relative_error(encoder, batch) < 1e-6


def test_fold_uses_weights_written_in_place(encoder, batch):
    folded_and_modules(encoder, batch)
    scale_weights(encoder)
    encoder.fold()
    assert relative_error(encoder, batch) < 1e-6


def test_gradients_flow_through_modules(encoder, batch):
    encoder.atom_states(batch).sum().backward()
    assert encoder.atom_type.weight.grad.abs().sum() > 0
    encoder.zero_grad()
    encoder.train()
    encoder.atom_states(batch).square().sum().backward()
    assert all(layer.mlp[0].weight.grad is not None for layer in encoder.layers)


def test_copy_does_not_share_folded_weights(encoder, batch):
    folded_and_modules(encoder, batch)
    other = copy.deepcopy(encoder)
    other.train()
    scale_weights(other)
    other.eval()
    assert relative_error(other, batch) < 1e-6
    assert relative_error(encoder, batch) < 1e-6
