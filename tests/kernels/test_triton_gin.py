"""The GIN stack on Triton, by layers and in one launch, interpreted, against naive in float64."""

import gc
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_kernels.dispatch import VARIABLE
from moltc_kernels.gin_stack import fused, gin_stack, naive, padding
from moltc_kernels.gin_stack import triton as gin_triton
from moltc_kernels.launch import split_width
from tests.kernels.cases import (
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
# The published width takes a quarter of a minute a case in the interpreter.
PUBLISHED_HALF = pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)],
    ids=["bf16", "fp16"],
)
FEW = settings(max_examples=6, deadline=None)


def by_layers(batch, weights):
    return gin_triton.layer_by_layer(batch.atoms, batch.bonds, weights)


def in_one_launch(batch, weights):
    tiles = 1 if max(batch.sizes) <= fused.TILE_ATOMS else 2
    return fused.gin_stack(*batch, weights, tiles)


def error(form, batch, weights) -> float:
    with poisoned():
        got = form(batch, weights)
    assert got.dtype == weights.up.dtype
    assert got.stride(-1) == 1
    return rms_ratio(got, naive.gin_stack(*batch, double(weights)))


def bound(dtype: torch.dtype) -> float:
    return (20 if dtype == torch.float32 else 2) * ROUNDOFF[dtype]


@DTYPES
@FEW
@given(batch=batches(max_size=40, max_batch=5), dim=st.sampled_from([8, 60, 63, 320]))
def test_by_layers(dtype, batch, dim):
    def whole(batch, weights):
        with mock.patch.object(fused, "tiles_for", return_value=None):
            return gin_triton.gin_stack(*batch, weights)

    weights = gin_weights(dim, 2 * dim, 2, dtype)
    assert error(whole, batch, weights) <= bound(dtype)


@HALF
@FEW
@given(batch=batches(max_size=64, max_batch=3), dim=st.sampled_from([8, 60, 63, 150]))
def test_in_one_launch(dtype, batch, dim):
    if batch.sizes:
        weights = gin_weights(dim, 2 * dim, 2, dtype)
        assert error(in_one_launch, batch, weights) <= bound(dtype)


@PUBLISHED_HALF
@pytest.mark.parametrize("sizes", [[32, 3], [33, 1, 64]])
def test_published_layout_in_one_launch(dtype, sizes):
    batch, weights = molecules(sizes), gin_weights(300, 600, 5, dtype)
    assert error(in_one_launch, batch, weights) <= bound(dtype)
    once = in_one_launch(batch, weights)
    assert torch.equal(once, in_one_launch(batch, weights))


@DTYPES
def test_published_layout_by_layers(dtype):
    batch, weights = molecules([30, 70]), gin_weights(300, 600, 5, dtype)
    assert error(by_layers, batch, weights) <= bound(dtype)
    assert torch.equal(by_layers(batch, weights), by_layers(batch, weights))


@HALF
def test_one_launch_does_not_know_a_molecules_neighbours(dtype):
    weights = gin_weights(60, 120, 3, dtype)
    sizes = [9, 40, 11]
    one, other = molecules(sizes, seed=1), molecules(sizes, seed=2)
    # The middle molecule of `one` between the outer ones of `other`.
    atoms = torch.cat([other.atoms[:9], one.atoms[9:49], other.atoms[49:]])
    begin, end = (int(one.bonds.offsets[v]) for v in (9, 49))
    no_bonds = torch.zeros(9, dtype=torch.int32)
    offsets = torch.cat([no_bonds, one.bonds.offsets[9:50] - begin, (end - begin) + 0 * no_bonds])
    offsets = torch.cat([offsets, offsets[-1:].expand(60 + 1 - len(offsets))])
    bonds = type(one.bonds)(offsets, one.bonds.source[begin:end], one.bonds.code[begin:end])
    mixed = one._replace(atoms=atoms, bonds=bonds)
    expected = in_one_launch(one, weights)[9:49]
    assert torch.equal(in_one_launch(mixed, weights)[9:49], expected)


def test_when_one_launch_is_taken():
    half, single = (gin_weights(60, 120, 2, dtype) for dtype in (torch.float16, torch.float32))

    def tiles(sizes, weights=half):
        batch = molecules(sizes, "none")
        return fused.tiles_for(batch.atoms, batch.offsets, weights)

    assert tiles([32]) == 1
    assert tiles([20, 20]) == 1
    assert tiles([33]) == 2
    assert tiles([1, 64]) == 2
    assert tiles([1, 65]) is None
    assert tiles([65]) is None
    assert tiles([1] * 66) == 1  # half as many as an H100 has multiprocessors
    assert tiles([1] * 67) is None
    assert tiles([33] * 33) == 2
    assert tiles([33] * 34) is None
    assert tiles([20], single) is None
    assert tiles([20], gin_weights(321, 32, 1, torch.float16)) is None


@DTYPES
@pytest.mark.parametrize("sizes", [[], [5, 60], [90]], ids=["empty", "small", "large"])
def test_the_variable_selects_the_kernels(dtype, sizes, monkeypatch):
    monkeypatch.setenv(VARIABLE, "triton")
    batch, weights = molecules(sizes), gin_weights(60, 120, 2, dtype)
    one_launch = mock.Mock(wraps=fused.gin_stack)
    monkeypatch.setattr(fused, "gin_stack", one_launch)
    assert error(lambda batch, weights: gin_stack(*batch, weights), batch, weights) <= bound(dtype)
    assert one_launch.called == (dtype != torch.float32 and sizes == [5, 60])
    monkeypatch.delattr(gin_triton, "gin_stack")
    with pytest.raises(AttributeError):
        gin_stack(*batch, weights)


def test_padded_weights_are_built_once_and_go_with_the_weights():
    gc.collect()
    weights = gin_weights(60, 120, 2, torch.float32)
    wide = padding.padded(weights, 64, 128, 32)
    assert padding.padded(weights, 64, 128, 32) is wide
    assert padding.padded(weights, 60, 120, 18) is weights
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


def test_blocks_cover_the_width():
    for width in range(1, 513):
        left, right = split_width(width)
        assert left + right >= width
        assert min(left, right) >= 16
        assert left & (left - 1) == right & (right - 1) == 0
    assert split_width(300) == (256, 64)
