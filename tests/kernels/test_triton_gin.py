"""The GIN stack on Triton, layer by layer and in one launch, against naive in float64."""

import gc
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_kernels.dispatch import KERNELS_ENV
from moltc_kernels.gin_stack import fused, gin_stack, naive, padding
from moltc_kernels.gin_stack import triton as gin_triton
from moltc_kernels.launch import split_width
from tests.kernels.cases import (
    DETAIL_CODES,
    DTYPES,
    ROUNDOFF,
    batches,
    double,
    gin_weights,
    molecules,
    poisoned,
    rms_ratio,
)

HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
# A case of the published width takes 15 seconds in the interpreter.
PUBLISHED_HALF = pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)],
    ids=["bf16", "fp16"],
)
FEW = settings(max_examples=6, deadline=None)


def layer_by_layer(batch, weights):
    return gin_triton.layer_by_layer(batch.atoms, batch.bonds, weights)


def in_one_launch(batch, weights):
    tiles = 1 if max(batch.sizes) <= fused.TILE_ATOMS else 2
    return fused.gin_stack(*batch, weights, tiles)


def error(compute, batch, weights) -> float:
    with poisoned():
        result = compute(batch, weights)
    assert result.dtype == weights.up.dtype
    assert result.stride(-1) == 1
    return rms_ratio(result, naive.gin_stack(*batch, double(weights)))


def bound(dtype: torch.dtype) -> float:
    return (20 if dtype == torch.float32 else 2) * ROUNDOFF[dtype]


@DTYPES
@FEW
@given(
    batch=batches(max_size=40, max_batch=5),
    dim=st.sampled_from([8, 60, 63, 320]),
    has_details=st.booleans(),
)
def test_layer_by_layer_matches_naive(dtype, batch, dim, has_details):
    def compute(batch, weights):
        with mock.patch.object(fused, "select_tiles", return_value=None):
            return gin_triton.gin_stack(*batch, weights)

    weights = gin_weights(dim, 2 * dim, 2, dtype, has_details=has_details)
    assert error(compute, batch, weights) <= bound(dtype)


@HALF
@FEW
@given(
    batch=batches(max_size=64, max_batch=3),
    dim=st.sampled_from([8, 60, 63, 150]),
    has_details=st.booleans(),
)
def test_one_launch_matches_naive(dtype, batch, dim, has_details):
    if batch.sizes:
        weights = gin_weights(dim, 2 * dim, 2, dtype, has_details=has_details)
        assert error(in_one_launch, batch, weights) <= bound(dtype)


@HALF
def test_one_launch_reads_the_details_of_both_tiles(dtype):
    batch, weights = molecules([40, 9]), gin_weights(60, 120, 2, dtype, has_details=True)
    assert error(in_one_launch, batch, weights) <= bound(dtype)
    result = in_one_launch(batch, weights)
    for atom in (5, 39, 44):  # first tile, second tile, second molecule
        atoms = batch.atoms.clone()
        atoms[atom, 2] = (atoms[atom, 2] + 1) % DETAIL_CODES
        changed = in_one_launch(batch._replace(atoms=atoms), weights)
        assert not torch.equal(changed[atom], result[atom])


@PUBLISHED_HALF
@pytest.mark.parametrize("sizes", [[32, 3], [33, 1, 64]])
def test_one_launch_is_accurate_and_deterministic_at_published_sizes(dtype, sizes):
    batch, weights = molecules(sizes), gin_weights(300, 600, 5, dtype)
    assert error(in_one_launch, batch, weights) <= bound(dtype)
    result = in_one_launch(batch, weights)
    assert torch.equal(result, in_one_launch(batch, weights))


@DTYPES
def test_layer_by_layer_is_accurate_and_deterministic_at_published_sizes(dtype):
    batch, weights = molecules([30, 70]), gin_weights(300, 600, 5, dtype)
    assert error(layer_by_layer, batch, weights) <= bound(dtype)
    assert torch.equal(layer_by_layer(batch, weights), layer_by_layer(batch, weights))


@HALF
def test_one_launch_is_independent_of_other_molecules(dtype):
    weights = gin_weights(60, 120, 3, dtype)
    sizes = [9, 40, 11]
    first, second = molecules(sizes, seed=1), molecules(sizes, seed=2)
    # The middle molecule of `first` between the outer ones of `second`.
    atoms = torch.cat([second.atoms[:9], first.atoms[9:49], second.atoms[49:]])
    begin, end = (int(first.bonds.offsets[v]) for v in (9, 49))
    no_bonds = torch.zeros(9, dtype=torch.int32)
    offsets = torch.cat([no_bonds, first.bonds.offsets[9:50] - begin, (end - begin) + 0 * no_bonds])
    offsets = torch.cat([offsets, offsets[-1:].expand(60 + 1 - len(offsets))])
    bonds = type(first.bonds)(offsets, first.bonds.source[begin:end], first.bonds.code[begin:end])
    mixed = first._replace(atoms=atoms, bonds=bonds)
    expected = in_one_launch(first, weights)[9:49]
    assert torch.equal(in_one_launch(mixed, weights)[9:49], expected)


def test_select_tiles_depends_on_sizes_and_dtype():
    half, single = (gin_weights(60, 120, 2, dtype) for dtype in (torch.float16, torch.float32))

    def tiles(sizes, weights=half):
        batch = molecules(sizes, "none")
        return fused.select_tiles(batch.atoms, batch.offsets, weights)

    assert tiles([32]) == 1
    assert tiles([20, 20]) == 1
    assert tiles([33]) == 2
    assert tiles([1, 64]) == 2
    assert tiles([1, 65]) is None
    assert tiles([65]) is None
    assert tiles([1] * 66) == 1  # Half as many as an H100 has multiprocessors.
    assert tiles([1] * 67) is None
    assert tiles([33] * 33) == 2
    assert tiles([33] * 34) is None
    assert tiles([20], single) is None
    assert tiles([20], gin_weights(321, 32, 1, torch.float16)) is None


@DTYPES
@pytest.mark.parametrize("sizes", [[], [5, 60], [90]], ids=["empty", "small", "large"])
def test_environment_variable_selects_kernels(dtype, sizes, monkeypatch):
    monkeypatch.setenv(KERNELS_ENV, "triton")
    batch, weights = molecules(sizes), gin_weights(60, 120, 2, dtype)
    one_launch = mock.Mock(wraps=fused.gin_stack)
    monkeypatch.setattr(fused, "gin_stack", one_launch)
    assert error(lambda batch, weights: gin_stack(*batch, weights), batch, weights) <= bound(dtype)
    assert one_launch.called == (dtype != torch.float32 and sizes == [5, 60])
    monkeypatch.delattr(gin_triton, "gin_stack")
    with pytest.raises(AttributeError):
        gin_stack(*batch, weights)


def test_padded_weights_are_cached_while_weights_exist():
    gc.collect()
    weights = gin_weights(60, 120, 2, torch.float32, has_details=True)
    wide = padding.pad_weights(weights, 64, 128, 32)
    assert padding.pad_weights(weights, 64, 128, 32) is wide
    assert padding.pad_weights(weights, 60, 120, 18) is weights
    assert wide.up.shape == (2, 64, 128)
    assert wide.bond_tables.shape == (2, 32, 64)
    assert torch.equal(wide.down[:, :120, :60], weights.down)
    for name in type(weights).__dataclass_fields__:
        before, after = getattr(weights, name), getattr(wide, name)
        torch.testing.assert_close(after.abs().sum(), before.abs().sum())
        assert after.count_nonzero() == before.count_nonzero()
    cached = len(padding._CACHE)
    del weights, wide
    gc.collect()
    assert len(padding._CACHE) == cached - 1


def test_split_width_covers_the_width():
    for width in range(1, 513):
        left, right = split_width(width)
        assert left + right >= width
        assert min(left, right) >= 16
        assert left & (left - 1) == right & (right - 1) == 0
    assert split_width(300) == (256, 64)
