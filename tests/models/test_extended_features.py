"""Extended atom features and descriptors of the graph encoder."""

import copy

import pytest
import torch

from moltc_vllm.chem import canonical_key, packed_of
from moltc_vllm.chem.atom_detail import DETAIL_CODES, DETAIL_SIZES
from moltc_vllm.chem.descriptor_vector import NUM_DESCRIPTORS
from moltc_vllm.models import BatchMolGraph, GraphEncoderConfig
from moltc_vllm.models.descriptor_encoder import DescriptorEncoder
from moltc_vllm.models.graph_encoder import GraphEncoder
from moltc_vllm.models.molecule_encoder import initialize_molecule_weights
from tests.molecules import DRUGS

LOOKALIKES = [("C", "[C]"), ("Oc1ccccc1", "[O-]c1ccccc1"), ("CC", "C[CH2]"), ("CN", "C[NH3+]")]


def encoder_with(**settings):
    torch.manual_seed(0)
    encoder = GraphEncoder(GraphEncoderConfig(hidden_size=60, num_layers=3, **settings)).eval()
    initialize_molecule_weights(encoder, std=0.2)
    for layer in encoder.layers:
        layer.norm.running_mean.normal_()
        layer.norm.running_var.uniform_(0.1, 2.0)
    return encoder


def batch_of(*smiles, descriptors=False):
    return BatchMolGraph.from_molecules(
        [packed_of(canonical_key(text), descriptors=descriptors) for text in smiles]
    )


@pytest.fixture(scope="module")
def extended():
    return encoder_with(atom_features="extended", descriptors=True)


def test_batch_contains_details_and_descriptors():
    batch = batch_of("CCO", "[Na+].[Cl-]", descriptors=True)
    assert batch.atoms.shape == (5, 3)
    details = [packed_of(canonical_key(smiles)).detail for smiles in ("CCO", "[Na+].[Cl-]")]
    assert batch.atoms[:, 2].tolist() == [code for codes in details for code in codes.tolist()]
    assert batch.descriptors.shape == (2, NUM_DESCRIPTORS)
    assert batch.descriptors.dtype == torch.float32
    assert batch_of("CCO").descriptors is None


def test_published_encoder_has_no_new_weights_and_ignores_details():
    encoder = encoder_with()
    extended = encoder_with(atom_features="extended", descriptors=True)
    new = set(extended.state_dict()) - set(encoder.state_dict())
    assert {name.split(".")[0] for name in new} == {"details", "descriptors"}
    assert {name for name in new if name.startswith("details")} == {
        f"details.{feature}.weight" for feature in DETAIL_SIZES
    }
    with torch.no_grad():
        for pair in LOOKALIKES:
            first, second = (encoder(batch_of(smiles))[0] for smiles in pair)
            assert torch.equal(first, second)


@pytest.mark.parametrize("pair", LOOKALIKES)
def test_extended_encoder_distinguishes_molecules_with_equal_graphs(pair):
    encoder = encoder_with(atom_features="extended")
    with torch.no_grad():
        first, second = (encoder(batch_of(smiles))[0] for smiles in pair)
    assert (first - second).abs().max() > 1e-2


def test_detail_table_is_the_sum_of_feature_embeddings(extended):
    details = extended.details
    table = details.table()
    assert table.shape == (DETAIL_CODES, 60)
    code = 0
    rows = {"formal_charge": 4, "hydrogens": 2, "ring_size": 5, "hybridization": 1, "radicals": 2}
    for name, size in DETAIL_SIZES.items():
        code = code * size + rows[name]
    expected = sum(getattr(details, name).weight[row] for name, row in rows.items())
    torch.testing.assert_close(table[code], expected)


@pytest.mark.parametrize("copies", [1, 30], ids=["few atoms", "equal atoms computed once"])
def test_folded_inference_equals_modules(extended, copies):
    batch = batch_of(*[*DRUGS.values(), "[O-]c1ccccc1", "C[CH2]"][-2 * copies :])
    with torch.no_grad():
        folded = extended.atom_states(batch).double()
    modules = copy.deepcopy(extended).double().atom_states(batch).detach()
    assert (folded - modules).norm() < 1e-6 * modules.norm()


def test_training_reaches_every_feature_embedding():
    encoder = encoder_with(atom_features="extended")
    batch = batch_of("[O-]c1ccccc1", "C[CH2]", "C#N", "C1CC1")
    encoder.atom_states(batch).square().sum().backward()
    for name in DETAIL_SIZES:
        assert encoder.details.get_submodule(name).weight.grad.abs().sum() > 0


def test_unknown_atom_features_are_refused():
    with pytest.raises(ValueError, match="atom_features 'all' is not one of published, extended"):
        GraphEncoderConfig(atom_features="all")


def test_descriptors_change_only_the_pooled_token(extended):
    batch = batch_of("CCO", "c1ccccc1", descriptors=True)
    other = copy.copy(batch)
    object.__setattr__(other, "descriptors", batch.descriptors + 1)
    with torch.no_grad():
        tokens, offsets = extended(batch)
        changed, _ = extended(other)
    difference = (tokens - changed).abs().amax(1)
    assert difference.nonzero().flatten().tolist() == offsets[:-1].tolist()


def test_missing_descriptors_are_an_error_that_says_what_to_do(extended):
    with pytest.raises(ValueError, match="pass descriptors=True to packed_of"):
        extended(batch_of("CCO"))


def test_normalization_standardizes_and_clips():
    encoder = DescriptorEncoder(8, dropout=0.5).eval()
    matrix = torch.randn(200, NUM_DESCRIPTORS) * 3 + 5
    matrix[:, 7] = 2.0  # the same for all molecules
    encoder.fit_normalization(matrix)
    seen = []
    encoder.layers.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encoder(matrix)
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(NUM_DESCRIPTORS), atol=1e-5, rtol=0)
    scale = torch.ones(NUM_DESCRIPTORS)
    scale[7] = 0
    torch.testing.assert_close(seen[0].std(0, correction=0), scale, atol=1e-4, rtol=0)
    encoder(torch.full((1, NUM_DESCRIPTORS), 1e6))
    assert seen[1].unique().tolist() == [6.0]
    # The statistics are part of the checkpoint.
    fresh = DescriptorEncoder(8, dropout=0.5).eval()
    fresh.load_state_dict(encoder.state_dict())
    assert torch.equal(fresh(matrix), encoder(matrix))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_normalization_stays_exact_in_half_precision(dtype):
    encoder = DescriptorEncoder(8, dropout=0.0).eval()
    matrix = torch.randn(50, NUM_DESCRIPTORS) * 0.01 + 5
    encoder.fit_normalization(matrix)
    half = copy.deepcopy(encoder).to(dtype)
    assert half.mean.dtype == torch.float32
    assert torch.equal(half.mean, encoder.mean)
    result = half(matrix)
    assert result.dtype == dtype
    assert (result.float() - encoder(matrix)).norm() < 0.02 * encoder(matrix).norm()
