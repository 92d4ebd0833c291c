"""The whole GIN stack in one launch, for few and small molecules.

A molecule's atoms stay on one multiprocessor through all layers. Its bonds become two small integer
matrices, adjacency ``A`` (with self loops) and bond histogram ``C``, so that a layer is
``relu((A h + C table) W1 + b1) W2 + b2`` on tensor cores. Between layers only weights are loaded,
from the L2 cache.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from moltc_kernels.alignment import empty_aligned_rows, round_up
from moltc_kernels.gin_stack.molecule_kernel import gin_molecule_kernel
from moltc_kernels.gin_stack.padding import pad_weights
from moltc_kernels.gin_stack.weights import GinWeights
from moltc_kernels.launch import LaunchConfig, Target, split_width, target_of
from moltc_kernels.triton_runtime import dot_precision
from moltc_kernels.types import CHIRALITIES, SELF_LOOP_CODE, BondCsr

Tiles = Literal[1, 2]
"""Number of tiles of `TILE_ATOMS` atoms that a program reserves for its molecule."""

TILE_ATOMS = 32
"""Atoms of one tile."""

CODES = 32
"""Rows of the padded bond tables, of which 18 are used."""

INNER_MULTIPLE = 32
"""The inner width is padded to a multiple of this."""

MAX_DIM = 320
"""Largest width of a state (256 + 64), since its accumulators must fit into registers."""


def _config(tiles: Tiles, inner: int, num_warps: int, num_stages: int) -> LaunchConfig:
    blocks = {"TILES": tiles, "BLOCK_ATOMS": TILE_ATOMS, "BLOCK_INNER": inner}
    return LaunchConfig(blocks, num_warps, num_stages)


# `num_stages` is the number of weight blocks to prefetch: as many as fit into shared memory and,
# without spills, into registers.
LAUNCH_CONFIGS: dict[tuple[Target, Tiles], LaunchConfig] = {
    ("sm_80", 1): _config(1, inner=32, num_warps=8, num_stages=2),
    ("sm_80", 2): _config(2, inner=32, num_warps=8, num_stages=1),
    ("sm_90", 1): _config(1, inner=32, num_warps=8, num_stages=3),
    ("sm_90", 2): _config(2, inner=32, num_warps=8, num_stages=2),
    ("sm_100", 1): _config(1, inner=32, num_warps=8, num_stages=3),
    ("sm_100", 2): _config(2, inner=32, num_warps=8, num_stages=2),
    ("gfx942", 1): _config(1, inner=32, num_warps=4, num_stages=1),
    ("gfx942", 2): _config(2, inner=16, num_warps=4, num_stages=1),
}


def select_tiles(atoms: Tensor, molecule_offsets: Tensor, weights: GinWeights) -> Tiles | None:
    """Decide whether one launch is faster than computing layer by layer, and with how many tiles.

    A tile occupies its multiprocessor while all weights (4 MB) are loaded from the L2 cache, and
    the loads become slower as more multiprocessors share the cache. Layer by layer, a small batch
    takes 19 launches regardless of its size. By the estimate for an H100
    (`moltc_kernels.aot.roofline`), one launch is faster up to about half a wave of tiles. It
    needs half precision, because tensor cores do not keep all digits of float32.

    The decision may need the largest molecule's size, and reading it synchronizes with the device.
    It is read only if all other conditions are met and the total number of atoms does not imply
    that every molecule is small enough.

    Returns:
        Number of tiles, or None to compute layer by layer. None is also returned if the size
        would have to be read during the capture of a CUDA graph, which forbids synchronization.
    """
    total, batch = atoms.shape[0], molecule_offsets.shape[0] - 1
    if weights.up.dtype.itemsize != 2 or weights.dim > MAX_DIM:
        return None
    if weights.bond_tables.shape[1] > CODES or total > 2 * TILE_ATOMS * batch:
        return None
    max_tiles = _multiprocessors(atoms) // 2
    if batch > max_tiles:
        return None
    largest = total  # Upper bound, exact for one molecule.
    if total > TILE_ATOMS and batch > 1:
        if molecule_offsets.is_cuda and torch.cuda.is_current_stream_capturing():
            return None
        largest = int(molecule_offsets.diff().max())
    if largest <= TILE_ATOMS:
        return 1
    return 2 if largest <= 2 * TILE_ATOMS and 2 * batch <= max_tiles else None


def _multiprocessors(tensor: Tensor) -> int:
    if not tensor.is_cuda:
        return 132  # The interpreter imitates an H100.
    return torch.cuda.get_device_properties(tensor.device).multi_processor_count


def gin_stack(
    atoms: Tensor, bonds: BondCsr, molecule_offsets: Tensor, weights: GinWeights, tiles: Tiles
) -> Tensor:
    """Compute `moltc_kernels.gin_stack.naive.gin_stack` in one launch; not differentiable.

    Bonds must stay within a molecule, and an atom may have at most 256 bonds of one code, since
    larger counts are not exact in bfloat16. If a state overflows, all states of its molecule become
    NaN: products with a matrix of counts contain ``0 * inf``, unlike a sum over neighbors.

    Args:
        atoms: Atom type, chirality and detail code, ``[V, 3]`` integers.
        bonds: Incoming bonds of every atom.
        molecule_offsets: Offsets of the molecules' atoms, ``[B + 1]`` integers.
        weights: Weights with batch norm folded in, in half precision.
        tiles: Result of `select_tiles`; no molecule has more than ``tiles * TILE_ATOMS`` atoms.

    Returns:
        ``[V, d]`` in the weights' dtype, with aligned rows.
    """
    left, right = split_width(weights.dim)
    inner = round_up(weights.up.shape[2], INNER_MULTIPLE)
    wide = pad_weights(weights, left + right, inner, CODES)
    out = empty_aligned_rows(weights.down, atoms.shape[0], weights.dim)
    config = LAUNCH_CONFIGS[target_of(out), tiles]
    gin_molecule_kernel[(molecule_offsets.shape[0] - 1,)](
        atoms.contiguous(),
        *(t.contiguous() for t in bonds),
        molecule_offsets.contiguous(),
        wide.atom_table.contiguous(),
        # Without a detail table, the kernel does not read this argument.
        (wide.atom_table if wide.detail_table is None else wide.detail_table).contiguous(),
        wide.bond_tables.contiguous(),
        wide.up.contiguous(),
        wide.up_bias.contiguous(),
        wide.down.contiguous(),
        wide.down_bias.contiguous(),
        out,
        **constants(
            weights.num_layers,
            weights.dim,
            out.stride(0),
            inner,
            dot_precision(out.dtype),
            has_details=weights.detail_table is not None,
        ),
        **config.blocks,
        **config.options,
    )
    return out


def constants(
    layers: int, dim: int, stride: int, inner: int, precision: str, *, has_details: bool
) -> dict[str, int | str]:
    """Return the compile-time arguments other than block sizes.

    Args:
        layers: Number of layers.
        dim: Width of an atom's state, without padding.
        stride: Row stride of the result, in numbers.
        inner: Padded inner width.
        precision: ``input_precision`` of ``tl.dot``.
        has_details: Whether the weights have a detail table.
    """
    left, right = split_width(dim)
    return {
        "LAYERS": layers,
        "STRIDE": stride,
        "LEFT": left,
        "RIGHT": right,
        "INNER": inner,
        "CODES": CODES,
        "CHIRALITIES": CHIRALITIES,
        "HAS_DETAILS": has_details,
        "SELF_LOOP": SELF_LOOP_CODE,
        "PRECISION": precision,
    }
