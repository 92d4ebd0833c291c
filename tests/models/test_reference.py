"""Our modules compute what the published model computes (shared fixture, float32)."""

import json
import re

import numpy as np
import pytest
import torch

from moltc_vllm.chem import featurize, parse_smiles
from moltc_vllm.models import BatchMolGraph, MoltcConfig, QFormerConfig
from moltc_vllm.models.molecule_encoder import MoleculeEncoder
from moltc_vllm.models.projector import ProjectorBank
from tests.paths import reference_dir

# Published names to ours, in this order.
GIN = r"^blip2opt\.graph_encoder\.gnns\.(\d+)\."
RENAMES = [
    (r"^blip2opt\.graph_encoder\.x_embedding1\.", "graph_encoder.atom_type."),
    (r"^blip2opt\.graph_encoder\.x_embedding2\.", "graph_encoder.chirality."),
    (
        r"^blip2opt\.graph_encoder\.gnns\.(\d+)\.edge_embedding1\.",
        r"graph_encoder.layers.\1.bond_type.",
    ),
    (
        r"^blip2opt\.graph_encoder\.gnns\.(\d+)\.edge_embedding2\.",
        r"graph_encoder.layers.\1.bond_direction.",
    ),
    (GIN + r"mlp\.", r"graph_encoder.layers.\1.mlp."),
    (r"^blip2opt\.graph_encoder\.batch_norms\.(\d+)\.", r"graph_encoder.layers.\1.norm."),
    (r"^blip2opt\.ln_graph\.", "graph_encoder.norm."),
    (r"^blip2opt\.query_tokens$", "qformer.queries"),
    (r"^blip2opt\.Qformer\.bert\.embeddings\.LayerNorm\.", "qformer.norm."),
    (r"^blip2opt\.Qformer\.bert\.encoder\.layer\.", "qformer.layers."),
    (r"\.attention\.self\.", ".self_attention."),
    (r"\.attention\.output\.dense\.", ".self_attention.output."),
    (r"\.attention\.output\.LayerNorm\.", ".self_attention.norm."),
    (r"\.crossattention\.self\.", ".cross_attention."),
    (r"\.crossattention\.output\.dense\.", ".cross_attention.output."),
    (r"\.crossattention\.output\.LayerNorm\.", ".cross_attention.norm."),
    (r"\.intermediate_query\.dense\.", ".up."),
    (r"\.output_query\.dense\.", ".down."),
    (r"\.output_query\.LayerNorm\.", ".norm."),
]


@pytest.fixture(scope="module")
def published():
    folder = reference_dir()
    state = torch.load(folder / "stage2.ckpt", weights_only=True)["state_dict"]
    sizes = json.loads((folder / "bert_pretrained" / "config.json").read_text())
    config = MoltcConfig(
        qformer_config=QFormerConfig(
            hidden_size=sizes["hidden_size"],
            num_layers=sizes["num_hidden_layers"],
            num_attention_heads=sizes["num_attention_heads"],
            intermediate_size=sizes["intermediate_size"],
        ),
    )
    config.text_config.word_embed_proj_dim = state["blip2opt.opt_proj.weight"].shape[0]
    encoder, projectors = MoleculeEncoder(config).eval(), ProjectorBank(config)
    weights = {}
    for key, tensor in state.items():
        name = key
        for pattern, ours in RENAMES:
            name = re.sub(pattern, ours, name)
        weights[name] = tensor
    projectors["shared"].weight.data = weights.pop("blip2opt.opt_proj.weight")
    projectors["shared"].bias.data = weights.pop("blip2opt.opt_proj.bias")
    weights.pop("blip2opt.Qformer.bert.embeddings.position_ids", None)  # unused buffer
    weights["qformer.queries"] = weights["qformer.queries"][0]
    encoder.load_state_dict(weights, strict=True)
    return encoder, projectors, folder


def test_every_step_of_forty_pairs_is_the_published_one(published):
    encoder, projectors, folder = published
    rows = [json.loads(line) for line in (folder / "expected.jsonl").open()]
    assert len(rows) == 40
    worst = dict.fromkeys(("gnn", "ln", "query", "mol"), 0.0)
    for row in rows:
        arrays = np.load(folder / row["arrays"])
        # As written, not canonical: the published code reads the SMILES it is given.
        graphs = [featurize(parse_smiles(row[f"smiles{i}"])) for i in (1, 2)]
        batch = BatchMolGraph.from_graphs(graphs)
        with torch.no_grad():
            atoms = encoder.graph_encoder.atom_states(batch)
            tokens, offsets = encoder.graph_encoder(batch)
            queries = encoder.qformer(tokens, offsets)
            molecules = projectors(queries, torch.zeros(2, dtype=torch.long))
        for i in (0, 1):
            own = slice(*batch.molecule_offsets[i : i + 2].tolist())
            got = {
                "gnn": torch.cat([atoms[own].mean(0, keepdim=True), atoms[own]]),
                "ln": tokens[slice(*offsets[i : i + 2].tolist())],
                "query": queries[i],
                "mol": molecules[i],
            }
            for name, value in got.items():
                expected = torch.from_numpy(arrays[f"{name}{i + 1}"])
                assert value.shape == expected.shape
                worst[name] = max(worst[name], float((value - expected).abs().max()))
    print(f"\nlargest differences: {worst}")
    assert max(worst.values()) < 1e-4
