"""The graph encoder: a GIN with edge features, and its read-out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moltc_kernels.aggregate import aggregate
from moltc_kernels.readout import readout
from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.config import GraphEncoderConfig

# Table sizes of the published checkpoints (their pre-training reserved a few rows).
ATOM_TYPES, CHIRALITIES, BOND_TYPES, BOND_DIRECTIONS = 120, 3, 6, 3


class GINLayer(nn.Module):
    """One round of message passing: neighbour sum, two linear layers, batch norm."""

    def __init__(self, config: GraphEncoderConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.bond_type = nn.Embedding(BOND_TYPES, dim)
        self.bond_direction = nn.Embedding(BOND_DIRECTIONS, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.norm = nn.BatchNorm1d(dim, eps=config.batch_norm_eps)

    def bond_table(self) -> Tensor:
        """One row per (type, direction), ``[18, dim]``."""
        table = self.bond_type.weight[:, None] + self.bond_direction.weight[None]
        return table.flatten(0, 1)

    def forward(self, h: Tensor, batch: BatchMolGraph) -> Tensor:  # V x d -> V x d
        """Update every atom from its neighbours."""
        return self.norm(self.mlp(aggregate(h, batch.bonds, self.bond_table())))


class GraphEncoder(nn.Module):
    """Atoms in, normalised atom states and a mean token out.

    Source: Hu et al. 2020 (GIN with edge features); MolTC section 3.1.
    """

    def __init__(self, config: GraphEncoderConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.atom_type = nn.Embedding(ATOM_TYPES, config.hidden_size)
        self.chirality = nn.Embedding(CHIRALITIES, config.hidden_size)
        self.layers = nn.ModuleList(GINLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, batch: BatchMolGraph) -> tuple[Tensor, Tensor]:
        """Encode a ragged batch.

        Returns:
            Tokens ``[V + B, dim]``, a molecule's mean in front of its atoms, and where each
            molecule's tokens begin, ``[B + 1]`` int64.
        """
        h = self.atom_states(batch)
        return readout(h, batch.molecule_offsets, self.norm.weight, self.norm.bias, self.norm.eps)

    def atom_states(self, batch: BatchMolGraph) -> Tensor:
        """Atom states after the last layer, before the read-out, ``[V, dim]``."""
        atom, chirality = batch.atoms.unbind(1)
        h = self.atom_type(atom) + self.chirality(chirality)
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            h = layer(h, batch)
            if number != last:
                h = torch.relu(h)
            h = F.dropout(h, self.dropout, self.training)
        return h
