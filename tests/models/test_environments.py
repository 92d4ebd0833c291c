"""Atom environments and counts: the same in any order and any company."""

import pytest
import torch
from rdkit import Chem

from moltc_vllm.chem import packed_of
from moltc_vllm.models.atom_environments import environment_hashes
from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.config import GraphEncoderConfig, MoltcConfig, QFormerConfig
from moltc_vllm.models.graph_encoder import GraphEncoder
from moltc_vllm.models.molecule_encoder import MoleculeEncoder, initialize_molecule_weights
from tests.molecules import DRUGS

MOLECULES = list(DRUGS.values())

RICH = {"hidden_size": 32, "num_layers": 2, "count_features": 8, "environment_buckets": 64}


def hashes(*smiles, radius=2):
    return environment_hashes(
        BatchMolGraph.from_molecules([packed_of(one) for one in smiles]), radius
    )


def as_sets(rows):
    return sorted(map(tuple, rows.tolist()))


@pytest.mark.parametrize("smiles", MOLECULES[:12])
def test_environments_do_not_depend_on_the_order_of_atoms(smiles):
    molecule = Chem.MolFromSmiles(smiles)
    # Aromatic bonds and neighbours stay, numbers and writing change.
    other = Chem.MolToSmiles(molecule, doRandom=True, isomericSmiles=False)
    assert as_sets(hashes(other)) == as_sets(hashes(smiles))


def test_environments_do_not_depend_on_the_batch():
    together = hashes(*MOLECULES[:5])
    alone = torch.cat([hashes(one) for one in MOLECULES[:5]])
    assert torch.equal(together, alone)


def test_environments_tell_what_is_how_far_away():
    def found(smiles):
        return [set(column) for column in zip(*hashes(smiles).tolist(), strict=True)]

    near, far = found("CCCO"), found("CCCN")
    # The two ends differ within one bond at C3 and O or N, and within two bonds at C2 as well.
    assert len(near[0] & far[0]) == 2
    assert len(near[1] & far[1]) == 1
    assert len(set(hashes("CCCCCC")[:, 0].tolist())) == 3  # the end, next to it, the middle
    assert len(set(hashes("c1ccccc1")[:, 1].tolist())) == 1


def test_a_larger_radius_adds_to_the_smaller_ones():
    assert torch.equal(hashes(*MOLECULES[:3], radius=4)[:, :2], hashes(*MOLECULES[:3]))
    # The end does not see within two bonds how long the chain is, within three it does.
    short, long = hashes("CCCO", radius=3), hashes("CCCCO", radius=3)
    assert short[0, 1] == long[0, 1]
    assert short[0, 2] != long[0, 2]


@pytest.fixture
def encoder():
    config = MoltcConfig(
        graph_encoder_config=GraphEncoderConfig(**RICH),
        qformer_config=QFormerConfig(
            num_queries=3,
            hidden_size=24,
            num_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            pooled_skip=True,
        ),
    )
    torch.manual_seed(0)
    model = MoleculeEncoder(config)
    initialize_molecule_weights(model, 0.2)
    return model.eval()


@torch.no_grad()
def test_an_encoded_molecule_does_not_depend_on_the_batch(encoder):
    packed = [packed_of(one) for one in MOLECULES[:9]]
    together = encoder(BatchMolGraph.from_molecules(packed))
    for number, one in enumerate(packed):
        alone = encoder(BatchMolGraph.from_molecules([one]))
        torch.testing.assert_close(alone[0], together[number], rtol=1e-5, atol=1e-5)


def test_gradients_and_inference_agree(encoder):
    batch = BatchMolGraph.from_molecules([packed_of(one) for one in MOLECULES[:4]])
    learning = encoder(batch)  # with gradients: the naive forms
    with torch.no_grad():
        torch.testing.assert_close(encoder(batch), learning, rtol=1e-4, atol=1e-4)
    learning.sum().backward()
    graph = encoder.graph_encoder
    for weight in (graph.environments.table.weight, graph.counts.kinds.weight, encoder.skip.weight):
        assert bool(weight.grad.abs().sum() > 0)


@torch.no_grad()
def test_counts_tell_a_molecule_from_twice_the_same():
    """Two fragments of one kind: mean, attention and environments see no difference."""
    torch.manual_seed(0)
    plain = GraphEncoder(GraphEncoderConfig(hidden_size=32, num_layers=2))
    counting = GraphEncoder(GraphEncoderConfig(hidden_size=32, num_layers=2, count_features=8))
    for model in (plain, counting):
        initialize_molecule_weights(model, 0.2)
        model.eval()
    one, two = (BatchMolGraph.from_molecules([packed_of(text)]) for text in ("CCO", "CCO.CCO"))
    torch.testing.assert_close(plain(one)[0][0], plain(two)[0][0], rtol=1e-5, atol=1e-5)
    assert float((counting(one)[0][0] - counting(two)[0][0]).abs().max()) > 0.01


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="environment_buckets 100 is not a power of two"):
        GraphEncoderConfig(environment_buckets=100)
    with pytest.raises(ValueError, match="count_features -1 is negative"):
        GraphEncoderConfig(count_features=-1)
    with pytest.raises(ValueError, match="environment_radius 0 is less than one bond"):
        GraphEncoderConfig(environment_radius=0)
