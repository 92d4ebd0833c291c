"""Inference on folded weights is the model's own computation, and never of old weights."""

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


def both(encoder, batch):
    """Folded inference, and the modules one after another in float64."""
    with torch.no_grad():
        folded = encoder.atom_states(batch)
    plain = copy.deepcopy(encoder).double().atom_states(batch)  # gradients on: not folded
    return folded.double(), plain.detach()


def apart(encoder, batch) -> float:
    folded, plain = both(encoder, batch)
    return float((folded - plain).norm() / plain.norm())


def test_folded_equals_module_by_module(encoder, batch):
    assert apart(encoder, batch) < 1e-6


def test_a_small_variance_keeps_its_digits():
    linear, norm = torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8).eval()
    norm.running_mean.normal_()
    norm.running_var.fill_(1e-9)
    weight, bias = fold_batch_norm(linear, norm)
    x = torch.randn(50, 8)
    exact = copy.deepcopy(norm).double()(copy.deepcopy(linear).double()(x.double()))
    got = x @ weight.T + bias
    assert (got - exact).norm() < 1e-6 * exact.norm()


def test_a_batch_norm_without_statistics_is_refused():
    with pytest.raises(ValueError, match="running statistics"):
        fold_batch_norm(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2, track_running_stats=False))


def change(encoder):
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(1.5)


def test_training_drops_folded_weights(encoder, batch):
    before, _ = both(encoder, batch)
    encoder.train()
    change(encoder)
    encoder.eval()
    after, _ = both(encoder, batch)
    assert not torch.allclose(after, before)
    assert apart(encoder, batch) < 1e-6


@pytest.mark.parametrize("assign", [False, True])
def test_loading_drops_folded_weights(encoder, batch, assign):
    other = copy.deepcopy(encoder)
    change(other)
    both(encoder, batch)
    # Through a parent, as checkpoints are loaded.
    torch.nn.ModuleDict({"a": encoder}).load_state_dict(
        {f"a.{key}": value for key, value in other.state_dict().items()}, assign=assign
    )
    assert torch.equal(both(encoder, batch)[0], both(other, batch)[0])
    assert apart(encoder, batch) < 1e-6


def test_converting_drops_folded_weights(encoder, batch):
    both(encoder, batch)
    torch.nn.ModuleDict({"a": encoder}).bfloat16()
    with torch.no_grad():
        assert encoder.atom_states(batch).dtype == torch.bfloat16
    encoder.float()
    assert apart(encoder, batch) < 1e-6


def test_fold_after_writing_in_place(encoder, batch):
    both(encoder, batch)
    change(encoder)
    encoder.fold()
    assert apart(encoder, batch) < 1e-6


def test_gradients_go_through_the_modules(encoder, batch):
    encoder.atom_states(batch).sum().backward()
    assert encoder.atom_type.weight.grad.abs().sum() > 0
    encoder.zero_grad()
    encoder.train()
    encoder.atom_states(batch).square().sum().backward()
    assert all(layer.mlp[0].weight.grad is not None for layer in encoder.layers)


def test_a_copy_does_not_share_folded_weights(encoder, batch):
    both(encoder, batch)
    other = copy.deepcopy(encoder)
    other.train()
    change(other)
    other.eval()
    assert apart(other, batch) < 1e-6
    assert apart(encoder, batch) < 1e-6
