"""Atom environments: what is around an atom, hashed as in a Morgan fingerprint, from a table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from moltc_vllm.models.batch import BatchMolGraph

# Odd 64-bit constants as signed integers (SplitMix64); products wrap around, on every device alike.
_FIRST, _SECOND, _BOND = -7046029254386353131, -4658895280553007687, -7723592293110705685


def environment_hashes(batch: BatchMolGraph, radius: int) -> Tensor:
    """Hashes of the environments within 1 to ``radius`` bonds, ``[V, radius]`` int64.

    Two atoms have the same hash if everything within so many bonds is alike, whatever molecule,
    batch or order of atoms they are in. Chirality and bond directions do not count: data sets
    differ in whether they tell them.

    Source: Rogers and Hahn 2010 (extended-connectivity fingerprints); sums in place of sorting.
    """
    offsets = batch.bonds.offsets.long()
    source, code = batch.bonds.source.long(), batch.bonds.code.long()
    degree = offsets.diff()
    target = torch.repeat_interleave(
        torch.arange(len(degree), device=degree.device), degree, output_size=len(source)
    )
    bond = _mix(code // 3 + _BOND)  # the bond's type
    here = _mix(batch.atoms[:, 0].long() * 64 + degree)
    found = []
    for _ in range(radius):
        around = torch.zeros_like(here).index_add(0, target, _mix(here[source] + bond))
        here = _mix(here * _FIRST + around)
        found.append(here)
    return torch.stack(found, 1)


class AtomEnvironments(nn.Module):
    """A learned vector for each environment; rare ones may share a row."""

    def __init__(self, dim: int, buckets: int, radius: int) -> None:
        super().__init__()
        self.buckets = buckets
        self.radius = radius
        self.table = nn.Embedding(radius * buckets, dim)
        self.pooled = nn.Linear(dim, dim)

    def forward(self, batch: BatchMolGraph) -> Tensor:
        """The sum of each atom's environments, ``[V, dim]``."""
        hashes = environment_hashes(batch, self.radius)
        first_row = torch.arange(self.radius, device=hashes.device) * self.buckets
        return self.table((hashes & (self.buckets - 1)) + first_row).sum(1)

    def pool(self, environments: Tensor, offsets: Tensor) -> Tensor:
        """What a molecule has of all of them, for its pooled token.

        Args:
            environments: ``[V, dim]``.
            offsets: Where each molecule's atoms begin, ``[B + 1]`` int64.

        Returns:
            ``[B, dim]``.
        """
        total = torch.segment_reduce(environments.float(), "sum", offsets=offsets)
        # By the root of their number, as they are independent: as large for drugs as for solvents.
        return self.pooled((total / offsets.diff()[:, None].sqrt()).to(environments.dtype))


def _mix(x: Tensor) -> Tensor:
    x = x * _FIRST
    x = (x ^ (x >> 29)) * _SECOND
    return x ^ (x >> 32)
