"""Graph encoder and Q-Former."""

import copy

import pytest
import torch

from moltc_vllm.chem import canonical_key, graph_of
from moltc_vllm.models import (
    BatchMolGraph,
    GraphEncoderConfig,
    MoleculeEncoder,
    MoltcConfig,
    QFormerConfig,
)
from moltc_vllm.models.graph_encoder import GraphEncoder
from moltc_vllm.models.molecule_encoder import initialize_molecule_weights

SMILES = ["CC(=O)Oc1ccccc1C(=O)O", "O", "[Na+].[Cl-]", "C[C@H](N)C(=O)O", "F/C=C/F", "[H][H]"]


def graphs(*smiles):
    return [graph_of(canonical_key(text)) for text in smiles]


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
    for module in encoder.modules():  # the initial statistics would change nothing
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return encoder


def reference_atom_states(model: GraphEncoder, graph, self_loop: int = 0) -> torch.Tensor:
    """The published GIN, atom by atom, in float64 (docs/concepts/published-model.md)."""
    model = copy.deepcopy(model).double()
    edge_index, edge_attr = graph.directed()
    h = [
        model.atom_type.weight[int(a)] + model.chirality.weight[int(c)]
        for a, c in zip(graph.atomic_number, graph.chirality, strict=True)
    ]
    for index, layer in enumerate(model.layers):
        loop = layer.bond_type.weight[self_loop] + layer.bond_direction.weight[0]
        a = [state + loop for state in h]
        for (u, v), (kind, direction) in zip(edge_index.T, edge_attr, strict=True):
            bond = layer.bond_type.weight[int(kind)] + layer.bond_direction.weight[int(direction)]
            a[int(v)] = a[int(v)] + h[int(u)] + bond
        z = torch.stack(a) @ layer.mlp[0].weight.T + layer.mlp[0].bias
        z = z.clamp(min=0) @ layer.mlp[2].weight.T + layer.mlp[2].bias
        norm = layer.norm
        y = (z - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        h = list(y if index == len(model.layers) - 1 else y.clamp(min=0))
    return torch.stack(h)


@pytest.mark.parametrize("smiles", SMILES)
def test_graph_encoder_matches_published_computation(encoder, smiles):
    (graph,) = graphs(smiles)
    with torch.no_grad():
        got = encoder.graph_encoder.atom_states(BatchMolGraph.from_graphs([graph]))
        expected = reference_atom_states(encoder.graph_encoder, graph)
    assert (got - expected).norm() < 1e-6 * expected.norm()


@pytest.mark.parametrize("smiles", SMILES)
@pytest.mark.parametrize("training", [False, True])
def test_self_loops_can_use_their_own_row(smiles, training):
    encoder = encoder_with(self_loop_bond_type=4).graph_encoder
    (graph,) = graphs(smiles)
    batch = BatchMolGraph.from_graphs([graph])
    expected = reference_atom_states(encoder, graph, self_loop=4)
    # With gradients the layers run one by one, without them as one folded operation.
    with torch.set_grad_enabled(training):
        got = encoder.atom_states(batch)
    assert (got - expected).norm() < 1e-6 * expected.norm()
    assert (got - reference_atom_states(encoder, graph)).norm() > 1e-2 * expected.norm()
    if training:
        got.sum().backward()
        rows = encoder.layers[0].bond_type.weight.grad.abs().sum(1)
        assert rows[4] > 0
        assert (rows[0] > 0) == bool((graph.bond_type == 0).any())


def test_self_loops_cannot_use_row_of_multiple_bonds():
    with pytest.raises(ValueError, match=r"self_loop_bond_type 1 is not one of \(0, 4, 5\)"):
        GraphEncoderConfig(self_loop_bond_type=1)


def test_encoding_does_not_depend_on_batch(encoder):
    large, worst = "C" * 150, 0.0
    with torch.no_grad():
        for smiles in SMILES:
            alone = encoder(BatchMolGraph.from_graphs(graphs(smiles)))[0]
            batched = encoder(BatchMolGraph.from_graphs(graphs(large, smiles, "N")))[1]
            worst = max(worst, float((alone - batched).abs().max()))
    print(f"\nalone and batched with a 150-atom molecule: largest difference {worst:.1e}")
    assert worst < 1e-5


def test_encodings_of_different_molecules_differ(encoder):
    with torch.no_grad():
        out = encoder(BatchMolGraph.from_graphs(graphs(*SMILES, "C[C@@H](N)C(=O)O", "F/C=C\\F")))
    distances = torch.cdist(out.flatten(1), out.flatten(1)) + torch.eye(len(out)) * 9
    assert distances.min() > 1e-4  # including enantiomers and cis-trans isomers


def test_encoding_does_not_depend_on_atom_order(encoder):
    with torch.no_grad():
        a, b = (encoder(BatchMolGraph.from_graphs(graphs(smiles))) for smiles in ("OCC", "CCO"))
    assert torch.equal(a, b)  # the canonical molecule is the same, so results are identical
