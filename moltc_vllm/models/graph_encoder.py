"""Graph encoder: a graph isomorphism network (GIN) with edge features, and its readout."""

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
from moltc_vllm.chem.atom_detail import DETAIL_CODES, DETAIL_SIZES
from moltc_vllm.models.atom_environments import (
    AtomEnvironments,
    EnvironmentEmbeddings,
    KnownEnvironments,
    KnownMolecules,
    environment_hashes,
    molecule_hashes,
)
from moltc_vllm.models.batch import BatchMolGraph
from moltc_vllm.models.config import GraphEncoderConfig
from moltc_vllm.models.descriptor_encoder import DescriptorEncoder

# Table sizes of the published checkpoints, whose pre-training reserved a few rows.
ATOM_TYPES, CHIRALITIES, BOND_TYPES, BOND_DIRECTIONS = 120, 3, 6, 3


class GINLayer(nn.Module):
    """One round of message passing: sum over neighbors, two linear layers, batch norm.

    Source: Hu et al. 2020, "Strategies for Pre-training Graph Neural Networks" (edge features in
    GIN); MolTC (Fang et al. 2024), section 3.1.
    """

    def __init__(self, config: GraphEncoderConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.bond_type = nn.Embedding(BOND_TYPES, dim)
        self.bond_direction = nn.Embedding(BOND_DIRECTIONS, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.norm = nn.BatchNorm1d(dim, eps=config.batch_norm_eps)
        self.self_loop = config.self_loop_bond_type * BOND_DIRECTIONS

    def bond_table(self) -> Tensor:
        """Build the embedding of every bond code, ``[18, dim]``.

        The kernels read the self loop's embedding from row 0. Where the configuration gives self
        loops another row, that row and row 0 are swapped.
        """
        table = (self.bond_type.weight[:, None] + self.bond_direction.weight[None]).flatten(0, 1)
        if self.self_loop == SELF_LOOP_CODE:
            return table
        order = list(range(len(table)))
        order[SELF_LOOP_CODE], order[self.self_loop] = self.self_loop, SELF_LOOP_CODE
        return table[order]

    def forward(self, h: Tensor, batch: BatchMolGraph) -> Tensor:  # [V, d] -> [V, d]
        """Update each atom's state from its neighbors."""
        return self.norm(self.mlp(aggregate(h, batch.bonds, self.bond_table())))

    @property
    def linear(self) -> tuple[nn.Linear, nn.Linear]:
        """The two linear layers of the MLP."""
        up, _, down = self.mlp
        assert isinstance(up, nn.Linear)
        assert isinstance(down, nn.Linear)
        return up, down


class AtomDetails(nn.Module):
    """Embeddings of the extended atom features, one table for each digit of the detail code.

    Args:
        dim: Width of an atom's state.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        for name, size in DETAIL_SIZES.items():
            self.add_module(name, nn.Embedding(size, dim))

    def forward(self, detail: Tensor) -> Tensor:
        """Sum the embeddings of the features in each detail code.

        Args:
            detail: ``[V]`` integers.

        Returns:
            ``[V, dim]``.
        """
        total: Tensor | None = None
        detail = detail.long()
        for name, size in reversed(tuple(DETAIL_SIZES.items())):
            rows = self.get_submodule(name)(detail % size)
            total = rows if total is None else total + rows
            detail = detail // size
        assert total is not None
        return total

    def table(self) -> Tensor:
        """Compute the sum of embeddings of every detail code, ``[DETAIL_CODES, dim]``."""
        return self(torch.arange(DETAIL_CODES, device=self.get_parameter("radicals.weight").device))


class AtomCounts(nn.Module):
    """Number of atoms of each learned kind in a molecule, as a vector for its pooled token.

    A sigmoid of an atom's state gives its membership in each kind. The counts enter both as they
    are, for properties that add up over a molecule, and as logarithms, for properties whose
    contribution per atom shrinks with the size of the molecule.

    Args:
        dim: Width of an atom's state.
        kinds: Number of kinds.
    """

    def __init__(self, dim: int, kinds: int) -> None:
        super().__init__()
        self.kinds = nn.Linear(dim, kinds)
        self.output = nn.Linear(2 * kinds, dim)

    def forward(self, h: Tensor, offsets: Tensor) -> Tensor:
        """Count the atoms of each kind and project the counts.

        Args:
            h: ``[V, dim]`` atom states.
            offsets: ``[B + 1]`` int64, index of each molecule's first atom.

        Returns:
            ``[B, dim]`` in the dtype of ``h``.
        """
        membership = torch.sigmoid(self.kinds(h)).float()  # [V, kinds]
        counts = torch.segment_reduce(membership, "sum", offsets=offsets)  # [B, kinds]
        # Drugs have about thirty atoms: tenths bring counts to the scale the layer was
        # initialized for.
        return self.output(torch.cat([counts / 10, torch.log1p(counts)], dim=1).to(h.dtype))


class GraphEncoder(nn.Module):
    """Encoder from molecular graphs to normalized atom states and a pooled token per molecule.

    In evaluation mode and without gradients, all layers run as one fused operation on weights with
    the batch norm folded in (`moltc_kernels.gin_stack`). They are folded at the first such call and
    dropped whenever weights are replaced: by loading, moving, converting or `train`. Code that
    writes into a weight in place must call `fold` afterwards.

    Source: Hu et al. 2020 (GIN with edge features); MolTC (Fang et al. 2024), section 3.1.
    """

    def __init__(self, config: GraphEncoderConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.self_loop = config.self_loop_bond_type * BOND_DIRECTIONS
        self.atom_type = nn.Embedding(ATOM_TYPES, config.hidden_size)
        self.chirality = nn.Embedding(CHIRALITIES, config.hidden_size)
        self.details = (
            AtomDetails(config.hidden_size) if config.atom_features == "extended" else None
        )
        self.layers = nn.ModuleList(GINLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.counts = (
            AtomCounts(config.hidden_size, config.count_features) if config.count_features else None
        )
        self.hash_radius = config.environment_radius
        self.environments = _environment_embeddings(config)
        self.known_molecules = (
            KnownMolecules(config.hidden_size, config.molecule_rows, config.molecule_dropout)
            if config.molecule_rows
            else None
        )
        self.descriptors = (
            DescriptorEncoder(config.hidden_size, config.dropout) if config.descriptors else None
        )
        self._folded_weights: GinWeights | None = None
        self.register_load_state_dict_post_hook(GraphEncoder._drop_folded_weights)

    def forward(self, batch: BatchMolGraph) -> tuple[Tensor, Tensor]:
        """Encode a ragged batch.

        Returns:
            ``[V + B, dim]`` tokens, with each molecule's pooled token in front of its atoms, and
            ``[B + 1]`` int64 index of each molecule's first token.

        Raises:
            ValueError: If the configuration asks for descriptors and the batch has none.
        """
        h, norm = self.atom_states(batch), self.norm  # [V, dim]
        atom_offsets = batch.molecule_offsets.long()  # [B + 1]
        pooled: list[Tensor] = []  # each [B, dim], added to the pooled tokens
        hashes = self.hashes(batch)  # [V, radius]
        if self.environments is not None:
            environments = self.environments(hashes)  # [V, dim]
            pooled.append(self.environments.pool(environments, atom_offsets))
            h = h + environments.to(h.dtype)
        if self.counts is not None:
            pooled.append(self.counts(h, atom_offsets))
        if self.descriptors is not None:
            if batch.descriptors is None:
                raise ValueError(
                    "the encoder needs the molecules' descriptors; pass descriptors=True to "
                    "packed_of or featurize_library"
                )
            pooled.append(self.descriptors(batch.descriptors))
        if self.known_molecules is not None:
            pooled.append(self.known_molecules(molecule_hashes(hashes, batch)))
        tokens, offsets = readout(h, batch.molecule_offsets, norm.weight, norm.bias, norm.eps)
        for vector in pooled:
            tokens = tokens.index_add(0, offsets[:-1], vector.to(tokens.dtype))
        return tokens, offsets

    def hashes(self, batch: BatchMolGraph) -> Tensor:
        """Hash the atoms' environments; ``[V, radius]`` int64, or ``[V, 0]`` if none are used."""
        if self.environments is None and self.known_molecules is None:
            return batch.atoms.new_empty(len(batch.atoms), 0, dtype=torch.int64)
        return environment_hashes(batch, self.hash_radius, details=self.details is not None)

    def atom_states(self, batch: BatchMolGraph) -> Tensor:
        """Compute atom states after the last layer, before the readout; ``[V, dim]``."""
        batch = self._remap_bond_codes(batch)
        if not self.training and not torch.is_grad_enabled():
            weights = self._folded_weights or self.fold()
            return gin_stack(batch.atoms, batch.bonds, batch.molecule_offsets, weights)
        atom, chirality, detail = batch.atoms.unbind(1)  # each [V]
        h = self.atom_type(atom) + self.chirality(chirality)  # [V, dim]
        if self.details is not None:
            h = h + self.details(detail)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            h = layer(h, batch)
            if index != last:
                h = torch.relu(h)
            h = F.dropout(h, self.dropout, self.training)
        return h

    def _remap_bond_codes(self, batch: BatchMolGraph) -> BatchMolGraph:
        """Apply the swap of rows in `GINLayer.bond_table` to the bonds that use row 0."""
        if self.self_loop == SELF_LOOP_CODE:
            return batch
        code = batch.bonds.code
        code = code.masked_fill(code == SELF_LOOP_CODE, self.self_loop)
        return replace(batch, bonds=batch.bonds._replace(code=code))

    @torch.no_grad()
    def fold(self) -> GinWeights:
        """Fold the current parameters into the weights that inference uses, and cache them."""
        layers = [layer for layer in self.layers if isinstance(layer, GINLayer)]
        up = [layer.linear[0] for layer in layers]
        down = [fold_batch_norm(layer.linear[1], layer.norm) for layer in layers]
        self._folded_weights = GinWeights(
            atom_table=(self.atom_type.weight[:, None] + self.chirality.weight).flatten(0, 1),
            bond_tables=torch.stack([layer.bond_table() for layer in layers]),
            up=torch.stack([linear.weight.T for linear in up]).contiguous(),
            up_bias=torch.stack([linear.bias for linear in up]),
            down=torch.stack([weight.T for weight, _ in down]).contiguous(),
            down_bias=torch.stack([bias for _, bias in down]),
            detail_table=None if self.details is None else self.details.table(),
        )
        return self._folded_weights

    def _drop_folded_weights(self, *_: Any) -> None:
        self._folded_weights = None

    def train(self, mode: bool = True) -> Self:
        """Set training mode; folded weights are dropped, because an optimizer may change weights.

        Args:
            mode: Whether to train; ``False`` sets evaluation mode.
        """
        self._drop_folded_weights()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._drop_folded_weights()
        return super()._apply(fn, recurse)


def _environment_embeddings(config: GraphEncoderConfig) -> EnvironmentEmbeddings | None:
    if config.environment_rows:
        return KnownEnvironments(
            config.hidden_size,
            config.environment_rows,
            config.environment_radius,
            config.environment_dropout,
        )
    if config.environment_buckets:
        return AtomEnvironments(
            config.hidden_size, config.environment_buckets, config.environment_radius
        )
    return None
