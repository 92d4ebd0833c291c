"""Atom environments and counts do not depend on atom order or batch."""

import pytest
import torch
from rdkit import Chem

from moltc_vllm.chem import packed_of
from moltc_vllm.models.atom_environments import (
    UNUSED_KEY,
    HashVocabulary,
    KnownMolecules,
    count_distinct,
    environment_hashes,
    molecule_hashes,
)
from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.config import GraphEncoderConfig, MoltcConfig, QFormerConfig
from moltc_vllm.models.graph_encoder import GraphEncoder
from moltc_vllm.models.molecule_encoder import MoleculeEncoder, initialize_molecule_weights
from tests.molecules import DRUGS

MOLECULES = list(DRUGS.values())

SIZES = {"hidden_size": 32, "num_layers": 2, "count_features": 8, "environment_buckets": 64}


def hashes(*smiles, radius=2):
    return environment_hashes(
        BatchMolGraph.from_molecules([packed_of(text) for text in smiles]), radius
    )


def sorted_rows(rows):
    return sorted(map(tuple, rows.tolist()))


@pytest.mark.parametrize("smiles", MOLECULES[:12])
def test_hashes_do_not_depend_on_atom_order(smiles):
    molecule = Chem.MolFromSmiles(smiles)
    # The graph stays the same, only atom order and SMILES change.
    other = Chem.MolToSmiles(molecule, doRandom=True, isomericSmiles=False)
    assert sorted_rows(hashes(other)) == sorted_rows(hashes(smiles))


def test_hashes_do_not_depend_on_batch():
    together = hashes(*MOLECULES[:5])
    alone = torch.cat([hashes(smiles) for smiles in MOLECULES[:5]])
    assert torch.equal(together, alone)


def test_hashes_differ_by_element_and_distance():
    def hashes_by_radius(smiles):
        return [set(column) for column in zip(*hashes(smiles).tolist(), strict=True)]

    alcohol, amine = hashes_by_radius("CCCO"), hashes_by_radius("CCCN")
    # Within one bond C3 and O or N differ, within two bonds C2 as well.
    assert len(alcohol[0] & amine[0]) == 2
    assert len(alcohol[1] & amine[1]) == 1
    assert len(set(hashes("CCCCCC")[:, 0].tolist())) == 3  # end, second and middle atoms
    assert len(set(hashes("c1ccccc1")[:, 1].tolist())) == 1


def test_larger_radius_keeps_hashes_of_smaller_ones():
    assert torch.equal(hashes(*MOLECULES[:3], radius=4)[:, :2], hashes(*MOLECULES[:3]))
    # The chain's length reaches the end atom within three bonds, not within two.
    short, long = hashes("CCCO", radius=3), hashes("CCCCO", radius=3)
    assert short[0, 1] == long[0, 1]
    assert short[0, 2] != long[0, 2]


@pytest.fixture
def encoder():
    config = MoltcConfig(
        graph_encoder_config=GraphEncoderConfig(**SIZES),
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
def test_encoding_with_environments_does_not_depend_on_batch(encoder):
    packed = [packed_of(smiles) for smiles in MOLECULES[:9]]
    together = encoder(BatchMolGraph.from_molecules(packed))
    for index, molecule in enumerate(packed):
        alone = encoder(BatchMolGraph.from_molecules([molecule]))
        torch.testing.assert_close(alone[0], together[index], rtol=1e-5, atol=1e-5)


def test_training_and_inference_encodings_agree(encoder):
    batch = BatchMolGraph.from_molecules([packed_of(smiles) for smiles in MOLECULES[:4]])
    with_gradients = encoder(batch)  # runs the naive kernels
    with torch.no_grad():
        torch.testing.assert_close(encoder(batch), with_gradients, rtol=1e-4, atol=1e-4)
    with_gradients.sum().backward()
    graph = encoder.graph_encoder
    for weight in (graph.environments.table.weight, graph.counts.kinds.weight, encoder.skip.weight):
        assert bool(weight.grad.abs().sum() > 0)


@torch.no_grad()
def test_counts_distinguish_one_fragment_from_two():
    """Mean, attention and environments are the same for one fragment and for two copies."""
    torch.manual_seed(0)
    plain = GraphEncoder(GraphEncoderConfig(hidden_size=32, num_layers=2))
    counting = GraphEncoder(GraphEncoderConfig(hidden_size=32, num_layers=2, count_features=8))
    for model in (plain, counting):
        initialize_molecule_weights(model, 0.2)
        model.eval()
    single, double = (
        BatchMolGraph.from_molecules([packed_of(smiles)]) for smiles in ("CCO", "CCO.CCO")
    )
    torch.testing.assert_close(plain(single)[0][0], plain(double)[0][0], rtol=1e-5, atol=1e-5)
    assert float((counting(single)[0][0] - counting(double)[0][0]).abs().max()) > 0.01


def test_invalid_graph_encoder_settings_are_refused():
    with pytest.raises(ValueError, match="environment_buckets 100 is not a power of two"):
        GraphEncoderConfig(environment_buckets=100)
    with pytest.raises(ValueError, match="count_features -1 is negative"):
        GraphEncoderConfig(count_features=-1)
    with pytest.raises(ValueError, match="environment_radius 0 is less than one bond"):
        GraphEncoderConfig(environment_radius=0)


def test_details_distinguish_molecules_of_equal_bonds():
    def molecule(smiles, **kwargs):
        batch = BatchMolGraph.from_molecules([packed_of(smiles)])
        return molecule_hashes(environment_hashes(batch, 2, **kwargs), batch).item()

    for first, second in (("Oc1ccccc1", "[O-]c1ccccc1"), ("C", "[CH3]"), ("C", "[C]")):
        assert molecule(first) == molecule(second)
        assert molecule(first, details=True) != molecule(second, details=True)


@pytest.mark.parametrize("smiles", MOLECULES[:12])
def test_molecule_hash_does_not_depend_on_atom_order_or_batch(smiles):
    other = Chem.MolToSmiles(Chem.MolFromSmiles(smiles), doRandom=True, isomericSmiles=False)
    batch = BatchMolGraph.from_molecules([packed_of(text) for text in (other, "CCO", smiles)])
    first, ethanol, last = molecule_hashes(environment_hashes(batch, 3), batch).tolist()
    assert first == last != ethanol


def test_vocabulary_keeps_frequent_hashes():
    vocabulary = HashVocabulary(3)
    assert vocabulary(torch.tensor([5, -7])).tolist() == [0, 0]
    hashes, counts = torch.tensor([-9, -3, 4, 8, 20]), torch.tensor([5, 1, 2, 7, 2])
    assert vocabulary.fit(hashes, counts, min_count=2) == 3
    # -9 and 8 are the most frequent; of 4 and 20, which occur equally often, the smaller is kept.
    assert vocabulary(torch.tensor([[-9, 4], [8, 20], [-3, 7]])).tolist() == [
        [1, 2],
        [3, 0],
        [0, 0],
    ]
    assert vocabulary.size == 3


def test_vocabulary_smaller_than_its_capacity():
    vocabulary = HashVocabulary(8)
    assert vocabulary.fit(torch.tensor([3, 1]), torch.tensor([1, 1]), min_count=1) == 2
    assert vocabulary(torch.tensor([1, 2, 3, UNUSED_KEY - 1])).tolist() == [1, 0, 2, 0]


def known_encoder(**changes):
    config = GraphEncoderConfig(
        hidden_size=32, num_layers=2, environment_rows=64, molecule_rows=4, **changes
    )
    encoder = GraphEncoder(config)
    initialize_molecule_weights(encoder)
    return encoder.eval()


@torch.no_grad()
def test_unknown_environments_and_molecules_add_nothing():
    encoder = known_encoder()
    batch = BatchMolGraph.from_molecules([packed_of(smiles) for smiles in MOLECULES[:4]])
    before, _ = encoder(batch)
    for table in (encoder.environments.table, encoder.known_molecules.table):
        table.weight[1:] += 1.0  # rows that no molecule of the batch refers to
    after, _ = encoder(batch)
    assert torch.equal(before, after)
    encoder.known_molecules.vocabulary.fit(
        molecule_hashes(encoder.hashes(batch), batch)[:1], torch.tensor([9]), min_count=1
    )
    known, offsets = encoder(batch)
    changed = (known != after).any(1).nonzero().flatten().tolist()
    assert changed == [int(offsets[0])]  # the pooled token of the first molecule


@torch.no_grad()
def test_rows_are_dropped_in_training_only():
    table = KnownMolecules(8, capacity=1, dropout=0.5)
    table.vocabulary.fit(torch.tensor([42]), torch.tensor([1]), min_count=1)
    hashes = torch.full((2000,), 42)
    present = table.train()(hashes).abs().sum(1) > 0
    assert 0.45 < present.float().mean() < 0.55
    assert bool((table.eval()(hashes).abs().sum(1) > 0).all())


def test_environments_count_once_per_molecule():
    hashes, counts = count_distinct([torch.tensor([[1, 2], [1, 3]]), torch.tensor([[3]])])
    assert dict(zip(hashes.tolist(), counts.tolist(), strict=True)) == {1: 1, 2: 1, 3: 2}


def test_tables_exclude_each_other():
    with pytest.raises(ValueError, match="exclude each other"):
        GraphEncoderConfig(environment_rows=8, environment_buckets=8)
