"""Simple implementation of the published model, one molecule and one pair at a time.

It uses RDKit, torch and transformers but no code of this package, and follows the specification in
``docs/concepts/published-model.md``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from rdkit import Chem
from torch import Tensor

CHIRAL = [
    Chem.ChiralType.CHI_UNSPECIFIED,
    Chem.ChiralType.CHI_TETRAHEDRAL_CW,
    Chem.ChiralType.CHI_TETRAHEDRAL_CCW,
]
BONDS = [Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE, Chem.BondType.AROMATIC]
DIRECTIONS = [Chem.BondDir.NONE, Chem.BondDir.ENDUPRIGHT, Chem.BondDir.ENDDOWNRIGHT]


def molecule_steps(state: dict[str, Tensor], smiles: str, heads: int) -> dict[str, Tensor]:
    """Return the steps of one molecule as the fixtures name them: gnn, ln, query and mol."""
    w = {key.removeprefix("blip2opt."): tensor for key, tensor in state.items()}
    gnn = graph_states(w, smiles)
    normed = F.layer_norm(gnn, gnn.shape[-1:], w["ln_graph.weight"], w["ln_graph.bias"])
    query = qformer(w, normed, heads)
    return {
        "gnn": gnn,
        "ln": normed,
        "query": query,
        "mol": F.linear(query, w["opt_proj.weight"], w["opt_proj.bias"]),
    }


def graph_states(w: dict[str, Tensor], smiles: str) -> Tensor:
    """Return ``[1 + n, width]``: the mean of the atom states, then the atom states."""
    mol = Chem.MolFromSmiles(smiles)
    atoms = [(a.GetAtomicNum() - 1, CHIRAL.index(a.GetChiralTag())) for a in mol.GetAtoms()]
    h = torch.stack(
        [
            w["graph_encoder.x_embedding1.weight"][a] + w["graph_encoder.x_embedding2.weight"][c]
            for a, c in atoms
        ]
    )
    layers = 1 + max(int(key.split(".")[2]) for key in w if key.startswith("graph_encoder.gnns."))
    for index in range(layers):
        layer, norm = f"graph_encoder.gnns.{index}.", f"graph_encoder.batch_norms.{index}."
        types, directions = (w[f"{layer}edge_embedding{i}.weight"] for i in (1, 2))
        a = h + types[0] + directions[0]
        for bond in mol.GetBonds():
            edge = types[BONDS.index(bond.GetBondType())]
            edge = edge + directions[DIRECTIONS.index(bond.GetBondDir())]
            i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            a[j] += h[i] + edge
            a[i] += h[j] + edge
        z = F.relu(F.linear(a, w[f"{layer}mlp.0.weight"], w[f"{layer}mlp.0.bias"]))
        z = F.linear(z, w[f"{layer}mlp.2.weight"], w[f"{layer}mlp.2.bias"])
        h = F.batch_norm(
            z,
            w[f"{norm}running_mean"],
            w[f"{norm}running_var"],
            w[f"{norm}weight"],
            w[f"{norm}bias"],
            eps=1e-5,
        )
        if index < layers - 1:
            h = F.relu(h)
    return torch.cat([h.mean(0, keepdim=True), h])


def qformer(w: dict[str, Tensor], tokens: Tensor, heads: int) -> Tensor:
    """Return the hidden states of the queries, ``[queries, width]``."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-12)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def attend(x: Tensor, context: Tensor, name: str) -> Tensor:
        q, k, v = (
            linear(source, f"{name}.self.{projection}").unflatten(-1, (heads, -1)).transpose(0, 1)
            for source, projection in ((x, "query"), (context, "key"), (context, "value"))
        )
        weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
        out = linear((weights @ v).transpose(0, 1).flatten(1), f"{name}.output.dense")
        return norm(out + x, f"{name}.output.LayerNorm")

    h = norm(w["query_tokens"][0], "Qformer.bert.embeddings.LayerNorm")
    prefix = "Qformer.bert.encoder.layer."
    layers = 1 + max(int(key.split(".")[4]) for key in w if key.startswith(prefix))
    for index in range(layers):
        layer = f"{prefix}{index}"
        h = attend(h, h, f"{layer}.attention")
        if f"{layer}.crossattention.self.query.weight" in w:
            h = attend(h, tokens, f"{layer}.crossattention")
        up = F.gelu(linear(h, f"{layer}.intermediate_query.dense"))
        h = norm(linear(up, f"{layer}.output_query.dense") + h, f"{layer}.output_query.LayerNorm")
    return h


def next_logits(language_model: Any, embeds: Tensor) -> Tensor:
    """Return the logits after a prompt, ``[vocabulary]``, without a cache."""
    return language_model(inputs_embeds=embeds[None]).logits[0, -1]


def greedy(
    language_model: Any, embeds: Tensor, stop: int, max_length: int, min_length: int
) -> list[int]:
    """Return the new tokens, including the stop token."""
    table = language_model.get_input_embeddings().weight
    ids: list[int] = []
    while len(ids) + 1 < max_length:
        logits = next_logits(language_model, embeds).clone()
        if len(ids) + 1 < min_length:
            logits[stop] = float("-inf")
        ids.append(int(logits.argmax()))
        if ids[-1] == stop:
            break
        embeds = torch.cat([embeds, table[ids[-1]][None]])
    return ids


def beam_search(
    language_model: Any, embeds: Tensor, stop: int, max_length: int, min_length: int, width: int
) -> list[tuple[float, list[int]]]:
    """Return scores and sequences with a leading ``<s>``, best first.

    The rules are those of the section "Generation" in ``docs/concepts/published-model.md``.
    """
    table = language_model.get_input_embeddings().weight
    beams: list[tuple[float, list[int]]] = [(0.0, [0])]
    finished: list[tuple[float, list[int]]] = []

    def finish(total: float, ids: list[int]) -> None:
        finished.append((total / len(ids), ids))
        finished.sort(key=lambda hypothesis: -hypothesis[0])
        del finished[width:]

    while len(beams[0][1]) < max_length:
        ranked = []
        for total, ids in beams:
            context = torch.cat([embeds, table[ids[1:]]])
            scores = next_logits(language_model, context).log_softmax(-1)
            if len(ids) < min_length:
                scores[stop] = float("-inf")
            ranked += [(total + float(s), ids, token) for token, s in enumerate(scores)]
        ranked = sorted(ranked, key=lambda candidate: -candidate[0])[: 2 * width]
        beams = []
        for rank, (total, ids, token) in enumerate(ranked):
            if token != stop:
                beams.append((total, [*ids, token]))
            elif rank < width:
                finish(total, ids)
            if len(beams) == width:
                break
        length = len(beams[0][1])
        if len(finished) == width and finished[-1][0] >= ranked[0][0] / length:
            return finished
    for total, ids in beams:
        finish(total, ids)
    return finished
