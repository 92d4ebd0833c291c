"""The whole GIN stack of a molecule in one launch, for few and small molecules.

A molecule's atoms stay on one multiprocessor through all layers. Its bonds become two small integer
matrices, adjacency ``A`` (with the self loop) and bond histogram ``C``, so that a layer is
``relu((A h + C table) W1 + b1) W2 + b2`` on tensor cores. Only weights move, from the L2 cache.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from moltc_kernels.alignment import empty_rows, round_up
from moltc_kernels.gin_stack.molecule_kernel import gin_molecule_kernel
from moltc_kernels.gin_stack.padding import padded
from moltc_kernels.gin_stack.weights import GinWeights
from moltc_kernels.launch import Launch, Target, split_width, target_of
from moltc_kernels.triton_runtime import dot_precision
from moltc_kernels.types import CHIRALITIES, SELF_LOOP_CODE, BondCsr

Tiles = Literal[1, 2]
"""Tiles of `TILE_ATOMS` rows that a molecule may have."""

TILE_ATOMS = 32

CODES = 32
"""Rows of the padded bond tables (18 are used)."""

INNER_MULTIPLE = 32

MAX_DIM = 320
"""Widest state whose accumulators fit the registers (256 + 64)."""


def _launch(tiles: Tiles, inner: int, num_warps: int, num_stages: int) -> Launch:
    blocks = {"TILES": tiles, "BLOCK_ATOMS": TILE_ATOMS, "BLOCK_INNER": inner}
    return Launch(blocks, num_warps, num_stages)


# As many stages of weights in flight as registers (none spilled) and shared memory allow.
LAUNCH: dict[tuple[Target, Tiles], Launch] = {
    ("sm_80", 1): _launch(1, inner=32, num_warps=8, num_stages=2),
    ("sm_80", 2): _launch(2, inner=32, num_warps=8, num_stages=1),
    ("sm_90", 1): _launch(1, inner=32, num_warps=8, num_stages=3),
    ("sm_90", 2): _launch(2, inner=32, num_warps=8, num_stages=2),
    ("sm_100", 1): _launch(1, inner=32, num_warps=8, num_stages=3),
    ("sm_100", 2): _launch(2, inner=32, num_warps=8, num_stages=2),
    ("gfx942", 1): _launch(1, inner=32, num_warps=4, num_stages=1),
    ("gfx942", 2): _launch(2, inner=16, num_warps=4, num_stages=1),
}


def tiles_for(atoms: Tensor, molecule_offsets: Tensor, weights: GinWeights) -> Tiles | None:
    """Whether one launch pays, and how many tiles a molecule may need.

    A tile occupies its multiprocessor while all weights (4 MB) pass from the L2 cache; the more
    multiprocessors read, the slower. Layer by layer a small batch takes 19 launches, whatever its
    size. Computed for an H100 (`moltc_kernels.aot.roofline`), one launch gains up to about half a
    wave of tiles. Half precision only: no tensor core keeps the digits of float32.

    Returns:
        None for the layer-by-layer form. The largest molecule's size is read from the device, a
        synchronisation, but only where everything else speaks for one launch and the number of
        atoms does not decide; None while a CUDA graph is captured, where that is forbidden.
    """
    total, batch = atoms.shape[0], molecule_offsets.shape[0] - 1
    if weights.up.dtype.itemsize != 2 or weights.dim > MAX_DIM:
        return None
    if weights.bond_tables.shape[1] > CODES or total > 2 * TILE_ATOMS * batch:
        return None
    most = _multiprocessors(atoms) // 2
    if batch > most:
        return None
    largest = total
    if total > TILE_ATOMS and batch > 1:
        if molecule_offsets.is_cuda and torch.cuda.is_current_stream_capturing():
            return None
        largest = int(molecule_offsets.diff().max())
    if largest <= TILE_ATOMS:
        return 1
    return 2 if largest <= 2 * TILE_ATOMS and 2 * batch <= most else None


def _multiprocessors(tensor: Tensor) -> int:
    if not tensor.is_cuda:
        return 132  # interpreted: as an H100
    return torch.cuda.get_device_properties(tensor.device).multi_processor_count


def gin_stack(
    atoms: Tensor, bonds: BondCsr, molecule_offsets: Tensor, weights: GinWeights, tiles: Tiles
) -> Tensor:
    """As `moltc_kernels.gin_stack.naive.gin_stack`, for molecules of at most ``tiles`` tiles.

    Bonds must stay within a molecule. An atom may have up to 256 bonds of one code (the counts are
    exact in bfloat16 up to there). Where a state overflows, all of its molecule is NaN: products
    with a matrix of counts have ``0 * inf``, a sum over neighbours has not.
    """
    left, right = split_width(weights.dim)
    inner = round_up(weights.up.shape[2], INNER_MULTIPLE)
    wide = padded(weights, left + right, inner, CODES)
    out = empty_rows(weights.down, atoms.shape[0], weights.dim)
    launch = LAUNCH[target_of(out), tiles]
    gin_molecule_kernel[(molecule_offsets.shape[0] - 1,)](
        atoms.contiguous(),
        *(t.contiguous() for t in bonds),
        molecule_offsets.contiguous(),
        wide.atom_table.contiguous(),
        wide.bond_tables.contiguous(),
        wide.up.contiguous(),
        wide.up_bias.contiguous(),
        wide.down.contiguous(),
        wide.down_bias.contiguous(),
        out,
        **constants(
            weights.num_layers, weights.dim, out.stride(0), inner, dot_precision(out.dtype)
        ),
        **launch.blocks,
        **launch.options,
    )
    return out


def constants(
    layers: int, dim: int, stride: int, inner: int, precision: str
) -> dict[str, int | str]:
    """Compile-time arguments besides the blocks; ``inner`` is the padded one."""
    left, right = split_width(dim)
    return {
        "LAYERS": layers,
        "STRIDE": stride,
        "LEFT": left,
        "RIGHT": right,
        "INNER": inner,
        "CODES": CODES,
        "CHIRALITIES": CHIRALITIES,
        "SELF_LOOP": SELF_LOOP_CODE,
        "PRECISION": precision,
    }
