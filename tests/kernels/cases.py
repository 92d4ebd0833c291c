"""Random molecules and weights for kernel tests, and the error of a result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from moltc_kernels import BondCsr
from moltc_kernels.cross_attention import KeyValue
from moltc_kernels.gin_stack import GinWeights

BOND_CODES = 18
ATOM_TYPES = 120
DETAIL_CODES = 50

DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"]
)

# Unit roundoff: rounding changes a number by at most this factor, on average by 0.42 of it.
ROUNDOFF = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


class Molecules(NamedTuple):
    """Ragged batch whose bonds stay within molecules."""

    atoms: Tensor  # [V, 3] int32
    bonds: BondCsr
    offsets: Tensor  # [B + 1] int32

    @property
    def sizes(self) -> list[int]:
        return self.offsets.diff().tolist()

    def to(self, device: torch.device | str) -> Molecules:
        bonds = BondCsr(*(t.to(device) for t in self.bonds))
        return Molecules(self.atoms.to(device), bonds, self.offsets.to(device))


def molecules(sizes: list[int], shape: str = "rings", seed: int = 0) -> Molecules:
    """Create random molecules.

    Args:
        sizes: Number of atoms of each molecule.
        shape: Topology: ``none`` has no bonds; in a ``star``, the first atom is bonded to all
            others; ``rings`` is a random tree with additional bonds. Each bond is listed in both
            directions.
        seed: Seed of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    edges, first = [], 0
    for size in sizes:
        pairs: list[tuple[int, int]] = []
        if shape == "star":
            pairs = [(0, other) for other in range(1, size)]
        elif shape == "rings":
            pairs = [(max(0, other - 1 - below(3)), other) for other in range(1, size)]
            pairs += [(below(size), below(size)) for _ in range(size // 5)]
        for begin, end in pairs:
            code = below(BOND_CODES)
            edges += [(first + begin, first + end, code), (first + end, first + begin, code)]
        first += size
    edges.sort(key=lambda edge: edge[1])
    source, target, code = torch.tensor(edges, dtype=torch.int64).reshape(-1, 3).unbind(1)
    degree = torch.bincount(target, minlength=first)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), degree.cumsum(0)])
    atoms = torch.stack(
        [
            torch.randint(ATOM_TYPES, (first,), generator=generator),
            torch.randint(3, (first,), generator=generator),
            torch.randint(DETAIL_CODES, (first,), generator=generator),
        ],
        dim=1,
    )
    return Molecules(
        atoms.int(), BondCsr(offsets.int(), source.int(), code.int()), offsets_of(sizes).int()
    )


def offsets_of(sizes: list[int]) -> Tensor:
    """Compute the offsets of molecules, ``[B + 1]`` int64."""
    return torch.tensor([0, *sizes]).cumsum(0)


def batches(max_size: int, max_batch: int) -> st.SearchStrategy[Molecules]:
    """Generate batches of molecules, including empty batches."""
    return st.builds(
        molecules,
        st.lists(st.integers(1, max_size), max_size=max_batch),
        st.sampled_from(["none", "star", "rings"]),
        st.integers(0, 2**16),
    )


def gin_weights(
    dim: int,
    inner: int,
    layers: int,
    dtype: torch.dtype,
    seed: int = 0,
    *,
    has_details: bool = False,
) -> GinWeights:
    """Create random weights that keep states at about unit size."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float) -> Tensor:
        return (torch.randn(*shape, generator=generator) * scale).to(dtype)

    return GinWeights(
        atom_table=normal(ATOM_TYPES * 3, dim, scale=1.0),
        bond_tables=normal(layers, BOND_CODES, dim, scale=0.5),
        up=normal(layers, dim, inner, scale=(2 / dim) ** 0.5 / 2),
        up_bias=normal(layers, inner, scale=0.2),
        down=normal(layers, inner, dim, scale=inner**-0.5),
        down_bias=normal(layers, dim, scale=0.2),
        detail_table=normal(DETAIL_CODES, dim, scale=0.5) if has_details else None,
    )


def key_value(heads: int, dim: int, width: int, dtype: torch.dtype) -> KeyValue:
    """Create random key and value layers."""
    weight = [torch.randn(heads * dim, width) * width**-0.5 for _ in range(2)]
    bias = [torch.randn(heads * dim) for _ in range(2)]
    return KeyValue(*(t.to(dtype) for t in (weight[0], bias[0], weight[1], bias[1])))


def convert_weights(weights: GinWeights, convert: Callable[[Tensor], Tensor]) -> GinWeights:
    """Apply a function to every tensor of the weights."""
    tensors = {name: getattr(weights, name) for name in GinWeights.__dataclass_fields__}
    return GinWeights(
        **{name: None if value is None else convert(value) for name, value in tensors.items()}
    )


def double(value: Any) -> Any:
    """Convert floating-point tensors to float64, also inside tuples and `GinWeights`."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, GinWeights):
        return convert_weights(value, torch.Tensor.double)
    return type(value)(*map(double, value))


def rms_ratio(result: Tensor, expected: Tensor) -> float:
    """Compute the RMS error relative to the RMS of the expected values.

    It is 0 for empty tensors and NaN if any value is NaN.
    """
    assert result.shape == expected.shape
    if not expected.numel():
        return 0.0
    error = (result.double() - expected).square().mean().sqrt()
    return float(error / expected.square().mean().sqrt())


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Fill memory that is allocated inside with NaN, so that an unwritten element shows."""
    allocators = [
        (torch, "empty", torch.empty),
        (torch, "empty_like", torch.empty_like),
        (Tensor, "new_empty", Tensor.new_empty),
    ]

    def poison(allocate: Any) -> Any:
        def allocate_poisoned(*args: Any, **options: Any) -> Tensor:
            tensor = allocate(*args, **options)
            return tensor.fill_(float("nan") if tensor.is_floating_point() else -(2**30))

        return allocate_poisoned

    with contextlib.ExitStack() as stack:
        for owner, name, allocate in allocators:
            stack.enter_context(mock.patch.object(owner, name, poison(allocate)))
        yield
