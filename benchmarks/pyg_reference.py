"""The molecule encoder as the published code computes it: PyG's GIN and a padded Q-Former.

The modules share the weights of this project's modules, so that results can be compared before
times are. See ``docs/concepts/published-model.md``, "Graph encoder (GIN)" and "Q-Former".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import add_self_loops

from moltc_vllm.models import BatchMolGraph, MoleculeEncoder
from moltc_vllm.models.graph_encoder import GINLayer, GraphEncoder
from moltc_vllm.models.qformer import Attention, QFormer


class PublishedBatch(NamedTuple):
    """Batch of molecules in the layout of PyG's loader, with V atoms and E directed bonds."""

    x: Tensor  # [V, 2] int64
    edge_index: Tensor  # [2, E] int64
    edge_attr: Tensor  # [E, 2] int64
    batch: Tensor  # [V] int64, index of each atom's molecule

    @classmethod
    def of(cls, graphs: BatchMolGraph) -> PublishedBatch:
        """Convert a batch of this project; the incoming bonds of an atom are consecutive."""
        sizes = graphs.molecule_offsets.diff().long()
        code = graphs.bonds.code.long()
        return cls(
            graphs.atoms[:, :2].long(),
            torch.stack([graphs.bonds.source.long(), graphs.bonds.target()]),
            torch.stack([code // 3, code % 3], dim=1),
            torch.repeat_interleave(torch.arange(len(sizes)), sizes),
        )


class PublishedGINLayer(MessagePassing):
    """GIN layer with a message per bond: the neighbor's state plus both bond embeddings."""

    def __init__(self, ours: GINLayer) -> None:
        super().__init__(aggr="add")
        self.mlp = ours.mlp
        self.edge_embedding1 = ours.bond_type
        self.edge_embedding2 = ours.bond_direction

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Compute new atom states ``[V, d]`` from old ones ``[V, d]``."""
        edge_index, _ = add_self_loops(edge_index, num_nodes=x.size(0))
        loops = torch.zeros(x.size(0), 2, dtype=edge_attr.dtype)
        edge_attr = torch.cat([edge_attr, loops])
        bond = self.edge_embedding1(edge_attr[:, 0]) + self.edge_embedding2(edge_attr[:, 1])
        return self.propagate(edge_index, x=x, bond=bond)

    def message(self, x_j: Tensor, bond: Tensor) -> Tensor:
        """Compute the messages, one per bond."""
        return x_j + bond

    def update(self, aggr_out: Tensor) -> Tensor:
        """Compute an atom's new state from the sum of its messages."""
        return self.mlp(aggr_out)


class PublishedGIN(nn.Module):
    """Published GIN over PyG batches."""

    def __init__(self, ours: GraphEncoder) -> None:
        super().__init__()
        self.x_embedding1, self.x_embedding2 = ours.atom_type, ours.chirality
        layers = [layer for layer in ours.layers if isinstance(layer, GINLayer)]
        self.gnns = nn.ModuleList(PublishedGINLayer(layer) for layer in layers)
        self.batch_norms = nn.ModuleList(layer.norm for layer in layers)

    def forward(self, data: PublishedBatch) -> Tensor:
        """Compute atom states ``[V, d]``."""
        h = self.x_embedding1(data.x[:, 0]) + self.x_embedding2(data.x[:, 1])
        last = len(self.gnns) - 1
        for index, (layer, norm) in enumerate(zip(self.gnns, self.batch_norms, strict=True)):
            h = norm(layer(h, data.edge_index, data.edge_attr))
            if index != last:
                h = F.relu(h)
        return h


class PaddedTokens(NamedTuple):
    """Tokens of a batch, padded to T, the number of tokens of the largest molecule."""

    tokens: Tensor  # [B, T, d]
    bias: Tensor  # [B, 1, 1, T] attention bias: 0, or -inf on padding

    @classmethod
    def of(cls, tokens: Tensor, offsets: Tensor) -> PaddedTokens:
        """Pad a ragged batch."""
        sizes = offsets.diff()
        width = int(sizes.max())
        mask = torch.arange(width) < sizes[:, None]
        padded = tokens.new_zeros(len(sizes), width, tokens.shape[1])
        padded[mask] = tokens
        bias = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))
        return cls(padded, bias[:, None, None, :])


class PaddedQFormer(nn.Module):
    """LAVIS's Q-Former, which computes keys and values of every token, padding included."""

    def __init__(self, ours: QFormer) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, padded: PaddedTokens) -> Tensor:
        """Compute query outputs ``[B, queries, D]``."""
        ours = self.ours
        h = ours.norm(ours.queries)[None].expand(padded.tokens.shape[0], -1, -1)
        for layer in ours.layers:
            h = _attend(layer.self_attention, h, h, None)
            if layer.cross_attention is not None:
                h = _attend(layer.cross_attention, h, padded.tokens, padded.bias)
            h = layer.norm(layer.down(F.gelu(layer.up(h))) + h)
        return h


def _attend(attention: Attention, h: Tensor, tokens: Tensor, bias: Tensor | None) -> Tensor:
    def split(x: Tensor) -> Tensor:  # B x n x D -> B x heads x n x d
        return x.unflatten(-1, (attention.heads, -1)).transpose(1, 2)

    out = F.scaled_dot_product_attention(
        split(attention.query(h)),
        split(attention.key(tokens)),
        split(attention.value(tokens)),
        attn_mask=bias,
    )
    return attention.norm(attention.output(out.transpose(1, 2).flatten(2)) + h)


class PublishedEncoder(nn.Module):
    """Published encoder: graphs to molecule tokens."""

    def __init__(self, ours: MoleculeEncoder) -> None:
        super().__init__()
        self.gin = PublishedGIN(ours.graph_encoder)
        self.norm = ours.graph_encoder.norm
        self.qformer = PaddedQFormer(ours.qformer)

    def forward(self, data: PublishedBatch, offsets: Tensor) -> Tensor:
        """Compute molecule tokens ``[B, queries, D]``.

        Args:
            data: Batch of B molecules.
            offsets: Offsets of the molecules' atoms, ``[B + 1]`` integers.
        """
        h = self.gin(data)
        sizes = offsets.diff().long()
        mean = h.new_zeros(len(sizes), h.shape[1]).index_add(0, data.batch, h) / sizes[:, None]
        position = torch.arange(len(h)) - offsets[:-1].long()[data.batch] + 1
        tokens = h.new_zeros(len(sizes), int(sizes.max()) + 1, h.shape[1])
        tokens[:, 0] = mean
        tokens[data.batch, position] = h
        mask = torch.arange(tokens.shape[1]) <= sizes[:, None]
        bias = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))[:, None, None, :]
        return self.qformer(PaddedTokens(self.norm(tokens), bias))
