"""Embeddings of atom environments, hashed as in a Morgan fingerprint.

Source: Rogers and Hahn 2010 (extended-connectivity fingerprints); neighbors are summed instead
of sorted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from moltc_vllm.models.batch import BatchMolGraph

# Odd 64-bit constants as signed integers (SplitMix64). Integer products wrap around identically on
# every device, so hashes are the same everywhere.
_MULTIPLIER_1, _MULTIPLIER_2 = -7046029254386353131, -4658895280553007687
_BOND_SALT = -7723592293110705685


def environment_hashes(batch: BatchMolGraph, radius: int) -> Tensor:
    """Hash each atom's environments of 1 to ``radius`` bonds.

    Two atoms have the same hash if everything within that number of bonds is identical, in any
    molecule, batch and atom order. Chirality and bond directions are ignored, because only some
    data sets contain them.

    Args:
        batch: Graphs with V atoms in total.
        radius: Number of bonds of the largest environment.

    Returns:
        ``[V, radius]`` int64.
    """
    offsets = batch.bonds.offsets.long()
    source, code = batch.bonds.source.long(), batch.bonds.code.long()  # [E]
    degree = offsets.diff()  # [V]
    target = torch.repeat_interleave(
        torch.arange(len(degree), device=degree.device), degree, output_size=len(source)
    )  # [E]
    bond_type = _mix(code // 3 + _BOND_SALT)  # [E]; a code is 3 * type + direction
    state = _mix(batch.atoms[:, 0].long() * 64 + degree)  # [V]
    hashes = []
    for _ in range(radius):
        neighbors = torch.zeros_like(state).index_add(0, target, _mix(state[source] + bond_type))
        state = _mix(state * _MULTIPLIER_1 + neighbors)
        hashes.append(state)
    return torch.stack(hashes, 1)


class AtomEnvironments(nn.Module):
    """Learned embeddings of atom environments; different environments may share a row.

    Args:
        dim: Width of an embedding.
        buckets: Number of rows for each radius, a power of two.
        radius: Number of bonds of the largest environment.
    """

    def __init__(self, dim: int, buckets: int, radius: int) -> None:
        super().__init__()
        self.buckets = buckets
        self.radius = radius
        self.table = nn.Embedding(radius * buckets, dim)
        self.pooled = nn.Linear(dim, dim)

    def forward(self, batch: BatchMolGraph) -> Tensor:
        """Sum the embeddings of each atom's environments; ``[V, dim]``."""
        hashes = environment_hashes(batch, self.radius)  # [V, radius]
        first_row = torch.arange(self.radius, device=hashes.device) * self.buckets
        return self.table((hashes & (self.buckets - 1)) + first_row).sum(1)

    def pool(self, environments: Tensor, offsets: Tensor) -> Tensor:
        """Pool each molecule's environments into a vector for its pooled token.

        Args:
            environments: ``[V, dim]`` result of `forward`.
            offsets: ``[B + 1]`` int64, index of each molecule's first atom.

        Returns:
            ``[B, dim]`` in the dtype of ``environments``.
        """
        total = torch.segment_reduce(environments.float(), "sum", offsets=offsets)  # [B, dim]
        # A sum of n nearly independent vectors grows with the root of n: dividing by it keeps the
        # magnitude the same for drugs and for solvents.
        return self.pooled((total / offsets.diff()[:, None].sqrt()).to(environments.dtype))


def _mix(x: Tensor) -> Tensor:
    x = x * _MULTIPLIER_1
    x = (x ^ (x >> 29)) * _MULTIPLIER_2
    return x ^ (x >> 32)
