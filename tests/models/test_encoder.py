"""Graph encoder, Q-Former and projectors."""

import copy

import numpy as np
import pytest
import torch

from moltc_vllm.chem import canonical_key, graph_of
from moltc_vllm.models import (
    BatchMolGraph,
    GraphEncoderConfig,
    MoleculeEncoder,
    MoltcConfig,
    ProjectorBank,
    ProjectorError,
    QFormerConfig,
    projector_index,
)
from moltc_vllm.models.graph_encoder import GraphEncoder
from moltc_vllm.models.molecule_encoder import initialize_molecule_weights
from moltc_vllm.models.projector import projector_names

SMILES = ["CC(=O)Oc1ccccc1C(=O)O", "O", "[Na+].[Cl-]", "C[C@H](N)C(=O)O", "F/C=C/F", "[H][H]"]


def graphs(*smiles):
    return [graph_of(canonical_key(one)) for one in smiles]


@pytest.fixture(scope="module")
def encoder():
    return encoder_with()


def encoder_with(**sizes):
    torch.manual_seed(0)
    config = MoltcConfig(
        graph_encoder_config=GraphEncoderConfig(hidden_size=60, num_layers=5, **sizes),
        qformer_config=QFormerConfig(
            hidden_size=48, num_layers=4, num_attention_heads=6, intermediate_size=96
        ),
    )
    encoder = MoleculeEncoder(config).eval()
    initialize_molecule_weights(encoder, std=0.15)
    for module in encoder.modules():  # statistics that do something
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return encoder


def reference_atom_states(model: GraphEncoder, graph, self_loop: int = 0) -> torch.Tensor:
    """REFERENCE section 2, atom by atom, in float64."""
    model = copy.deepcopy(model).double()
    edge_index, edge_attr = graph.directed()
    h = [
        model.atom_type.weight[int(a)] + model.chirality.weight[int(c)]
        for a, c in zip(graph.atomic_number, graph.chirality, strict=True)
    ]
    for number, layer in enumerate(model.layers):
        loop = layer.bond_type.weight[self_loop] + layer.bond_direction.weight[0]
        a = [state + loop for state in h]
        for (u, v), (kind, direction) in zip(edge_index.T, edge_attr, strict=True):
            bond = layer.bond_type.weight[int(kind)] + layer.bond_direction.weight[int(direction)]
            a[int(v)] = a[int(v)] + h[int(u)] + bond
        z = torch.stack(a) @ layer.mlp[0].weight.T + layer.mlp[0].bias
        z = z.clamp(min=0) @ layer.mlp[2].weight.T + layer.mlp[2].bias
        norm = layer.norm
        y = (z - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        h = list(y if number == len(model.layers) - 1 else y.clamp(min=0))
    return torch.stack(h)


@pytest.mark.parametrize("smiles", SMILES)
def test_graph_encoder_is_the_published_computation(encoder, smiles):
    (graph,) = graphs(smiles)
    with torch.no_grad():
        got = encoder.graph_encoder.atom_states(BatchMolGraph.from_graphs([graph]))
        expected = reference_atom_states(encoder.graph_encoder, graph)
    assert (got - expected).norm() < 1e-6 * expected.norm()


@pytest.mark.parametrize("smiles", SMILES)
@pytest.mark.parametrize("training", [False, True])
def test_self_loops_may_have_a_row_of_their_own(smiles, training):
    own = encoder_with(self_loop_bond_type=4).graph_encoder
    (graph,) = graphs(smiles)
    batch = BatchMolGraph.from_graphs([graph])
    expected = reference_atom_states(own, graph, self_loop=4)
    with torch.set_grad_enabled(training):  # with gradients layer by layer, without them folded
        got = own.atom_states(batch)
    assert (got - expected).norm() < 1e-6 * expected.norm()
    assert (got - reference_atom_states(own, graph)).norm() > 1e-2 * expected.norm()
    if training:
        got.sum().backward()
        rows = own.layers[0].bond_type.weight.grad.abs().sum(1)
        assert rows[4] > 0
        assert (rows[0] > 0) == bool((graph.bond_type == 0).any())


def test_a_bonds_row_is_no_row_for_self_loops():
    with pytest.raises(ValueError, match=r"self_loop_bond_type 1 is none of \(0, 4, 5\)"):
        GraphEncoderConfig(self_loop_bond_type=1)


def test_a_molecule_does_not_notice_its_neighbours(encoder):
    large, worst = "C" * 150, 0.0
    with torch.no_grad():
        for smiles in SMILES:
            alone = encoder(BatchMolGraph.from_graphs(graphs(smiles)))[0]
            beside = encoder(BatchMolGraph.from_graphs(graphs(large, smiles, "N")))[1]
            worst = max(worst, float((alone - beside).abs().max()))
    print(f"\nalone and beside a 150-atom neighbour: largest difference {worst:.1e}")
    assert worst < 1e-5


def test_different_molecules_differ(encoder):
    with torch.no_grad():
        out = encoder(BatchMolGraph.from_graphs(graphs(*SMILES, "C[C@@H](N)C(=O)O", "F/C=C\\F")))
    distances = torch.cdist(out.flatten(1), out.flatten(1)) + torch.eye(len(out)) * 9
    assert distances.min() > 1e-4  # enantiomers and cis-trans isomers included


def test_atom_order_does_not_matter(encoder):
    with torch.no_grad():
        a, b = (encoder(BatchMolGraph.from_graphs(graphs(smiles))) for smiles in ("OCC", "CCO"))
    assert torch.equal(a, b)  # one canonical molecule, therefore equal to the last bit


def test_packing_is_joining(encoder):
    batch = BatchMolGraph.from_graphs(graphs(*SMILES))
    assert batch.num_molecules == len(SMILES)
    for number, graph in enumerate(graphs(*SMILES)):
        begin, end = batch.molecule_offsets[number : number + 2].tolist()
        assert end - begin == graph.num_atoms
        expected = sorted(
            (int(u), int(v), int(kind) * 3 + int(direction))
            for (u, v), (kind, direction) in zip(*map(np.asarray, _columns(graph)), strict=True)
        )
        got = sorted(
            (int(batch.bonds.source[e]) - begin, v - begin, int(batch.bonds.code[e]))
            for v in range(begin, end)
            for e in range(int(batch.bonds.offsets[v]), int(batch.bonds.offsets[v + 1]))
        )
        assert got == expected


def _columns(graph):
    edge_index, edge_attr = graph.directed()
    return edge_index.T, edge_attr


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one molecule"):
        BatchMolGraph.from_graphs([])


def config_with(sharing: str) -> MoltcConfig:
    return MoltcConfig(
        qformer_config=QFormerConfig(hidden_size=12, num_attention_heads=3),
        projector_sharing=sharing,
        tasks=["ddi", "solvation"],
    )


@pytest.mark.parametrize(("sharing", "count"), [("shared", 1), ("role", 2), ("task_role", 4)])
def test_projector_bank_gives_each_molecule_its_own_layer(sharing, count):
    config = config_with(sharing)
    config.text_config.word_embed_proj_dim = 20
    bank = ProjectorBank(config)
    assert list(bank) == projector_names(config)
    assert len(bank) == count
    tokens = torch.randn(7, 8, 12)
    index = torch.arange(7) % count
    got = bank(tokens, index)
    for row, number in enumerate(index.tolist()):
        torch.testing.assert_close(got[row], list(bank.values())[number](tokens[row]))


def test_projector_index():
    assert {projector_index(config_with("shared"), r, "ddi") for r in (0, 1, 5)} == {0}
    assert [projector_index(config_with("role"), r, None) for r in (0, 1, 2)] == [0, 1, 1]
    each = config_with("task_role")
    assert [projector_index(each, r, "solvation") for r in (0, 1, 9)] == [2, 3, 3]
    with pytest.raises(ProjectorError, match="name the task"):
        projector_index(each, 0, None)
    with pytest.raises(ProjectorError, match="unknown task 'x'"):
        projector_index(each, 0, "x")
    with pytest.raises(ProjectorError, match="negative"):
        projector_index(each, -1, "ddi")
