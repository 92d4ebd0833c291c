"""Embeddings of atom environments, hashed as in a Morgan fingerprint, and of whole molecules.

Source: Rogers and Hahn 2010 (extended-connectivity fingerprints); neighbors are summed instead
of sorted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from moltc_vllm.models.batch import BatchMolGraph

# Odd 64-bit constants as signed integers (SplitMix64). Integer products wrap around identically on
# every device, so hashes are the same everywhere.
_MULTIPLIER_1, _MULTIPLIER_2 = -7046029254386353131, -4658895280553007687
_BOND_SALT = -7723592293110705685

UNUSED_KEY = torch.iinfo(torch.int64).max
"""Key of a vocabulary row that stands for nothing; it sorts behind all hashes."""


def environment_hashes(batch: BatchMolGraph, radius: int, *, details: bool = False) -> Tensor:
    """Hash each atom's environments of 1 to ``radius`` bonds.

    Two atoms have the same hash if everything within that number of bonds is identical, in any
    molecule, batch and atom order. Chirality and bond directions are ignored, because only some
    data sets contain them.

    Args:
        batch: Graphs with V atoms in total.
        radius: Number of bonds of the largest environment.
        details: Whether charge, hydrogens, ring size, hybridization and radical electrons count;
            otherwise only elements, degrees and bond types do.

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
    invariant = batch.atoms[:, 0].long() * 64 + degree  # [V]
    if details:
        invariant = invariant + (batch.atoms[:, 2].long() << 16)
    state = _mix(invariant)
    hashes = []
    for _ in range(radius):
        neighbors = torch.zeros_like(state).index_add(0, target, _mix(state[source] + bond_type))
        state = _mix(state * _MULTIPLIER_1 + neighbors)
        hashes.append(state)
    return torch.stack(hashes, 1)


def molecule_hashes(environments: Tensor, batch: BatchMolGraph) -> Tensor:
    """Hash each molecule by the multiset of its atoms' largest environments.

    Args:
        environments: ``[V, radius]`` result of `environment_hashes`.
        batch: The graphs of the atoms.

    Returns:
        ``[B]`` int64.
    """
    sizes = batch.molecule_offsets.long().diff()  # [B]
    molecule = torch.repeat_interleave(
        torch.arange(len(sizes), device=sizes.device), sizes, output_size=len(environments)
    )  # [V]
    total = torch.zeros_like(sizes).index_add(0, molecule, _mix(environments[:, -1]))
    return _mix(total + sizes)


class EnvironmentEmbeddings(nn.Module):
    """Learned embeddings of the environments around every atom; subclasses choose the rows.

    Args:
        dim: Width of an embedding.
        rows: Number of rows of the table.
        radius: Number of bonds of the largest environment.
    """

    def __init__(self, dim: int, rows: int, radius: int) -> None:
        super().__init__()
        self.radius = radius
        self.table = nn.Embedding(rows, dim)
        self.pooled = nn.Linear(dim, dim)

    def forward(self, hashes: Tensor) -> Tensor:
        """Sum the embeddings of each atom's environments; ``[V, radius]`` to ``[V, dim]``."""
        return self.table(self.rows(hashes)).sum(1)

    def rows(self, hashes: Tensor) -> Tensor:
        """Return the row of each environment; ``[V, radius]`` to ``[V, radius]`` int64."""
        raise NotImplementedError

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


class AtomEnvironments(EnvironmentEmbeddings):
    """Embeddings of all environments; different ones may share a row.

    Args:
        dim: Width of an embedding.
        buckets: Number of rows for each radius, a power of two.
        radius: Number of bonds of the largest environment.
    """

    def __init__(self, dim: int, buckets: int, radius: int) -> None:
        super().__init__(dim, radius * buckets, radius)
        self.buckets = buckets

    def rows(self, hashes: Tensor) -> Tensor:
        """Return the row of each environment; ``[V, radius]`` to ``[V, radius]`` int64."""
        first_row = torch.arange(self.radius, device=hashes.device) * self.buckets
        return (hashes & (self.buckets - 1)) + first_row


class KnownEnvironments(EnvironmentEmbeddings):
    """Embeddings of the environments of training molecules; all others share a zero row.

    A row that training never visits stays random and adds noise to the answers for new molecules.
    Here an environment that is not in the vocabulary adds nothing, and training shows the model
    molecules with missing environments.

    Args:
        dim: Width of an embedding.
        capacity: Largest number of environments.
        radius: Number of bonds of the largest environment.
        dropout: Probability, in training only, that an environment is treated as unknown.

    Attributes:
        vocabulary: Known environments of all radii.
    """

    def __init__(self, dim: int, capacity: int, radius: int, dropout: float) -> None:
        super().__init__(dim, capacity + 1, radius)
        self.table.padding_idx = 0
        self.vocabulary = HashVocabulary(capacity)
        self.row_dropout = dropout

    def rows(self, hashes: Tensor) -> Tensor:
        """Return the row of each environment; ``[V, radius]`` to ``[V, radius]`` int64."""
        rows = self.vocabulary(salt_by_radius(hashes))
        return _drop_rows(rows, self.row_dropout) if self.training else rows


class KnownMolecules(nn.Module):
    """Embedding of each molecule that many training pairs contain, for its pooled token.

    It holds what measurements say about a molecule and its structure does not, for example how
    often a drug interacts. Other molecules get a zero vector.

    Args:
        dim: Width of an embedding.
        capacity: Largest number of molecules.
        dropout: Probability, in training only, that a molecule is treated as unknown. At one half
            the model learns equally to do without the embedding.

    Attributes:
        vocabulary: Known molecules.
    """

    def __init__(self, dim: int, capacity: int, dropout: float) -> None:
        super().__init__()
        self.table = nn.Embedding(capacity + 1, dim, padding_idx=0)
        self.vocabulary = HashVocabulary(capacity)
        self.row_dropout = dropout

    def forward(self, hashes: Tensor) -> Tensor:
        """Embed molecules; ``[B]`` result of `molecule_hashes` to ``[B, dim]``."""
        rows = self.vocabulary(hashes)
        return self.table(_drop_rows(rows, self.row_dropout) if self.training else rows)


class HashVocabulary(nn.Module):
    """Vocabulary of hashes, whose rows count from 1; row 0 stands for any other hash.

    Args:
        capacity: Largest number of hashes.
    """

    keys: Tensor  # [capacity] int64, ascending, filled up with `UNUSED_KEY`

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.full((capacity,), UNUSED_KEY))

    def forward(self, hashes: Tensor) -> Tensor:
        """Look up the row of each hash; int64 of any shape."""
        if not len(self.keys):
            return torch.zeros_like(hashes)
        index = torch.searchsorted(self.keys, hashes).clamp_(max=len(self.keys) - 1)
        return torch.where(self.keys[index] == hashes, index + 1, 0)

    @property
    def size(self) -> int:
        """Number of hashes in the vocabulary."""
        return int((self.keys != UNUSED_KEY).sum())

    @torch.no_grad()
    def fit(self, hashes: Tensor, counts: Tensor, min_count: int) -> int:
        """Choose the most frequent hashes.

        Args:
            hashes: ``[N]`` distinct int64.
            counts: ``[N]`` integers, number of training molecules or pairs with each hash.
            min_count: Smallest count of a hash in the vocabulary.

        Returns:
            Number of hashes in the vocabulary.
        """
        frequent = (counts >= min_count) & (hashes != UNUSED_KEY)
        hashes, counts = hashes[frequent], counts[frequent]
        # Equal counts are ordered by hash, so that the choice is the same on every machine.
        order = torch.argsort(hashes)
        order = order[torch.argsort(counts[order], descending=True, stable=True)]
        chosen = hashes[order[: len(self.keys)]].sort().values
        self.keys.fill_(UNUSED_KEY)
        self.keys[: len(chosen)] = chosen
        return len(chosen)


def salt_by_radius(hashes: Tensor) -> Tensor:
    """Make environments of different radii differ, as they share one vocabulary.

    A lone atom would otherwise have related hashes at every radius.

    Args:
        hashes: ``[V, radius]`` result of `environment_hashes`.
    """
    return _mix(hashes + torch.arange(1, hashes.shape[1] + 1, device=hashes.device))


def count_distinct(hashes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Count in how many of several tensors each hash occurs.

    Args:
        hashes: One int64 tensor of any shape for each molecule.

    Returns:
        ``[N]`` distinct hashes, ascending, and ``[N]`` counts.
    """
    each = [torch.unique(molecule) for molecule in hashes]
    return torch.unique(torch.cat(each), return_counts=True)


def _drop_rows(rows: Tensor, rate: float) -> Tensor:
    return rows * (torch.rand(rows.shape, device=rows.device) >= rate)


def _mix(x: Tensor) -> Tensor:
    x = x * _MULTIPLIER_1
    x = (x ^ (x >> 29)) * _MULTIPLIER_2
    return x ^ (x >> 32)
