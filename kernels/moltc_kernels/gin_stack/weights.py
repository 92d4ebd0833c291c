"""Weights of the GIN stack in the kernels' layout: summed tables and folded batch norm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor, nn


class GinLayerWeights(NamedTuple):
    """Weights of one layer: the tensors of `GinWeights` without their leading dimension."""

    bond_table: Tensor  # [18, d]
    up: Tensor  # [d, h]
    up_bias: Tensor  # [h]
    down: Tensor  # [h, d]
    down_bias: Tensor  # [d]


@dataclass(frozen=True, eq=False)
class GinWeights:
    """Weights of L layers of width d with inner width h, in one dtype and on one device."""

    atom_table: Tensor  # [types * 3, d] sum of both embeddings at row type * 3 + chirality
    bond_tables: Tensor  # [L, 18, d] sum of both embeddings at row type * 3 + direction
    up: Tensor  # [L, d, h] first linear layer, input x output
    up_bias: Tensor  # [L, h]
    down: Tensor  # [L, h, d] second linear layer with batch norm folded in
    down_bias: Tensor  # [L, d]
    detail_table: Tensor | None = None  # [detail codes, d], added to the initial state

    @cached_property
    def layers(self) -> list[GinLayerWeights]:
        """Weights of each layer, cached because a view takes as long as a small product."""
        stacked = (self.bond_tables, self.up, self.up_bias, self.down, self.down_bias)
        return [GinLayerWeights(*tensors) for tensors in zip(*stacked, strict=True)]

    @cached_property
    def first_up(self) -> tuple[Tensor, Tensor]:
        """Atom table ``[types * 3, h]`` and bond table ``[18, h]`` times the first linear layer.

        The first layer sums rows of two tables, and a linear layer can be applied before the sum
        as well as after it. The products are computed in float64 and stored as float32.
        """
        up = self.up[0].double()
        tables = (self.atom_table, self.bond_tables[0])
        atom_up, bond_up = ((table.double() @ up).float() for table in tables)
        return atom_up, bond_up

    @cached_property
    def detail_up(self) -> Tensor | None:
        """Detail table times the first linear layer, ``[detail codes, h]``; see `first_up`."""
        if self.detail_table is None:
            return None
        return (self.detail_table.double() @ self.up[0].double()).float()

    @property
    def num_layers(self) -> int:
        """Number of layers (L)."""
        return self.up.shape[0]

    @property
    def dim(self) -> int:
        """Width of an atom's state (d)."""
        return self.up.shape[1]


def fold_batch_norm(linear: nn.Linear, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Fold a batch norm's running statistics into the linear layer before it.

    ``norm(x W^T + b) = x (s W)^T + (b - mean) s + shift`` with ``s = gain / sqrt(variance + eps)``,
    computed in float64, because dividing by a small variance loses digits in float32.

    Args:
        linear: Linear layer ``in -> out`` with a bias.
        norm: Batch norm over ``out`` features, with running statistics.

    Returns:
        Folded weight ``[out, in]`` and bias ``[out]`` in the layer's dtype.

    Raises:
        ValueError: If ``norm`` keeps no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(
            "a batch norm without running statistics cannot be folded; create it with "
            "track_running_stats=True"
        )
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = linear.weight.double() * scale[:, None]
    bias = (linear.bias.double() - norm.running_mean.double()) * scale + norm.bias.double()
    return weight.to(linear.weight.dtype), bias.to(linear.weight.dtype)
