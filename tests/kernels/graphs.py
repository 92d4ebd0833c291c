"""Random molecular graphs, and how far two results are apart."""

from dataclasses import dataclass

import torch
from torch import Tensor

from moltc_kernels import BondCsr


@dataclass(frozen=True)
class Molecules:
    """A ragged batch."""

    atoms: Tensor  # [V, 2] int32
    bonds: BondCsr
    offsets: Tensor  # [B + 1] int32

    @property
    def num_atoms(self) -> int:
        return self.atoms.shape[0]

    @property
    def codes(self) -> Tensor:
        return (self.atoms[:, 0] * 3 + self.atoms[:, 1]).long()


def random_molecules(sizes, seed: int, kinds: int = 118, repeat: bool = False) -> Molecules:
    """Trees with a few rings, of the given numbers of atoms.

    Args:
        sizes: Atoms of each molecule.
        seed: Of everything drawn, and left set for what the test draws next.
        kinds: Different atom types and bond codes; few make many atoms alike.
        repeat: Draw every molecule from the same seed.
    """
    torch.manual_seed(seed)
    atoms, edges, begin = [], [], 0
    for size in sizes:
        if repeat:
            torch.manual_seed(seed)
        atoms.append(
            torch.stack([torch.randint(kinds, (size,)), torch.randint(min(kinds, 3), (size,))], 1)
        )
        bonds = [(i, int(torch.randint(i, ()))) for i in range(1, size)]
        bonds += [
            (int(torch.randint(size, ())), int(torch.randint(size, ()))) for _ in range(size // 6)
        ]
        for a, b in bonds:
            code = int(torch.randint(min(kinds, 18), ()))
            edges += [(begin + b, begin + a, code), (begin + a, begin + b, code)]
        begin += size
    edges.sort()
    table = torch.tensor(edges, dtype=torch.int32).reshape(-1, 3)
    degree = torch.bincount(table[:, 0], minlength=begin)
    offsets = torch.cat([torch.zeros(1), degree.cumsum(0)]).int()
    starts = torch.tensor([0, *sizes]).cumsum(0).int()
    csr = BondCsr(offsets, table[:, 1].contiguous(), table[:, 2].contiguous())
    joined = torch.cat(atoms).int() if atoms else torch.zeros(0, 2, dtype=torch.int32)
    return Molecules(joined, csr, starts)


def rms_ratio(got: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected; nan if anything is."""
    assert got.shape == expected.shape
    difference = (got.double() - expected.double()).norm()
    return float(difference / expected.double().norm().clamp_min(1e-30))
