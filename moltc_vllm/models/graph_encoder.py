"""The graph encoder: a GIN with edge features, and its read-out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moltc_kernels.aggregate import aggregate
from moltc_kernels.gin_stack import GinWeights, fold_batch_norm, gin_stack
from moltc_kernels.readout import readout
from moltc_kernels.types import SELF_LOOP_CODE
from moltc_vllm.models.atom_environments import AtomEnvironments
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
        self.self_loop = config.self_loop_bond_type * BOND_DIRECTIONS

    def bond_table(self) -> Tensor:
        """One row per (type, direction), ``[18, dim]``, that of self loops first.

        Row 0 and the self loops' row have changed places where these are two.
        """
        table = (self.bond_type.weight[:, None] + self.bond_direction.weight[None]).flatten(0, 1)
        if self.self_loop == SELF_LOOP_CODE:
            return table
        order = list(range(len(table)))
        order[SELF_LOOP_CODE], order[self.self_loop] = self.self_loop, SELF_LOOP_CODE
        return table[order]

    def forward(self, h: Tensor, batch: BatchMolGraph) -> Tensor:  # V x d -> V x d
        """Update every atom from its neighbours."""
        return self.norm(self.mlp(aggregate(h, batch.bonds, self.bond_table())))

    @property
    def linear(self) -> tuple[nn.Linear, nn.Linear]:
        """The two linear layers."""
        up, _, down = self.mlp
        assert isinstance(up, nn.Linear)
        assert isinstance(down, nn.Linear)
        return up, down


class AtomCounts(nn.Module):
    """How many atoms of some learned kinds a molecule has, as a vector for its pooled token.

    An atom belongs to a kind by a sigmoid of its state. The counts go in as they are, for what adds
    up over a molecule, and as logarithms, for what large molecules have less of per atom.
    """

    def __init__(self, dim: int, kinds: int) -> None:
        super().__init__()
        self.kinds = nn.Linear(dim, kinds)
        self.output = nn.Linear(2 * kinds, dim)

    def forward(self, h: Tensor, offsets: Tensor) -> Tensor:
        """Count.

        Args:
            h: Atom states, ``[V, dim]``.
            offsets: Where each molecule's atoms begin, ``[B + 1]`` int64.

        Returns:
            ``[B, dim]``.
        """
        belongs = torch.sigmoid(self.kinds(h)).float()
        counts = torch.segment_reduce(belongs, "sum", offsets=offsets)  # B x kinds
        # Tenths, so that a drug's thirty atoms are of the size the layer was initialised for.
        return self.output(torch.cat([counts / 10, torch.log1p(counts)], dim=1).to(h.dtype))


class GraphEncoder(nn.Module):
    """Atoms in, normalised atom states and a mean token out.

    Without gradients, in evaluation mode, the layers run as one operation on folded weights
    (`moltc_kernels.gin_stack`). They are folded at the first such call and dropped by everything
    that replaces weights: loading, moving, converting, `train`. Whoever writes into a weight in
    place calls `fold` afterwards.

    Source: Hu et al. 2020 (GIN with edge features); MolTC section 3.1.
    """

    def __init__(self, config: GraphEncoderConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.self_loop = config.self_loop_bond_type * BOND_DIRECTIONS
        self.atom_type = nn.Embedding(ATOM_TYPES, config.hidden_size)
        self.chirality = nn.Embedding(CHIRALITIES, config.hidden_size)
        self.layers = nn.ModuleList(GINLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.counts = (
            AtomCounts(config.hidden_size, config.count_features) if config.count_features else None
        )
        self.environments = (
            AtomEnvironments(
                config.hidden_size, config.environment_buckets, config.environment_radius
            )
            if config.environment_buckets
            else None
        )
        self._folded: GinWeights | None = None
        self.register_load_state_dict_post_hook(GraphEncoder._drop_folded)

    def forward(self, batch: BatchMolGraph) -> tuple[Tensor, Tensor]:
        """Encode a ragged batch.

        Returns:
            Tokens ``[V + B, dim]``, a molecule's mean in front of its atoms, and where each
            molecule's tokens begin, ``[B + 1]`` int64.
        """
        h, norm = self.atom_states(batch), self.norm
        pooled: list[Tensor] = []
        molecules = batch.molecule_offsets.long()
        if self.environments is not None:
            around = self.environments(batch)
            pooled.append(self.environments.pool(around, molecules))
            h = h + around.to(h.dtype)
        if self.counts is not None:
            pooled.append(self.counts(h, molecules))
        tokens, offsets = readout(h, batch.molecule_offsets, norm.weight, norm.bias, norm.eps)
        for vector in pooled:
            tokens = tokens.index_add(0, offsets[:-1], vector.to(tokens.dtype))
        return tokens, offsets

    def atom_states(self, batch: BatchMolGraph) -> Tensor:
        """Atom states after the last layer, before the read-out, ``[V, dim]``."""
        batch = self._with_codes_of_tables(batch)
        if not self.training and not torch.is_grad_enabled():
            weights = self._folded or self.fold()
            return gin_stack(batch.atoms, batch.bonds, batch.molecule_offsets, weights)
        atom, chirality = batch.atoms.unbind(1)
        h = self.atom_type(atom) + self.chirality(chirality)
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            h = layer(h, batch)
            if number != last:
                h = torch.relu(h)
            h = F.dropout(h, self.dropout, self.training)
        return h

    def _with_codes_of_tables(self, batch: BatchMolGraph) -> BatchMolGraph:
        """Bond codes as `GINLayer.bond_table` has its rows: the operations keep 0 for loops."""
        if self.self_loop == SELF_LOOP_CODE:
            return batch
        code = batch.bonds.code
        code = code.masked_fill(code == SELF_LOOP_CODE, self.self_loop)
        return replace(batch, bonds=batch.bonds._replace(code=code))

    @torch.no_grad()
    def fold(self) -> GinWeights:
        """Make and keep the weights that inference uses, from the parameters as they are now."""
        layers = [layer for layer in self.layers if isinstance(layer, GINLayer)]
        up = [layer.linear[0] for layer in layers]
        down = [fold_batch_norm(layer.linear[1], layer.norm) for layer in layers]
        self._folded = GinWeights(
            atom_table=(self.atom_type.weight[:, None] + self.chirality.weight).flatten(0, 1),
            bond_tables=torch.stack([layer.bond_table() for layer in layers]),
            up=torch.stack([linear.weight.T for linear in up]).contiguous(),
            up_bias=torch.stack([linear.bias for linear in up]),
            down=torch.stack([weight.T for weight, _ in down]).contiguous(),
            down_bias=torch.stack([bias for _, bias in down]),
        )
        return self._folded

    def _drop_folded(self, *_: Any) -> None:
        self._folded = None

    def train(self, mode: bool = True) -> Self:
        """Switch training mode; the optimiser is about to change weights, or has."""
        self._drop_folded()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._drop_folded()
        return super()._apply(fn, recurse)
