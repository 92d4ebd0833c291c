"""Least time on an H100, from counted work and published peaks. Computed, nothing is measured.

A part takes as long as the slower of its arithmetic and its traffic. Traffic is what has to pass
HBM when every tensor is read once and written once; a batch's weights are counted where they are
read again for every molecule, else they are shared by the batch and vanish.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moltc_kernels.alignment import round_up
from moltc_kernels.aot.configurations import DIM, HEADS, INNER, LAYERS, QUERIES
from moltc_kernels.gin_stack.fused import CODES, INNER_MULTIPLE, TILE_ATOMS
from moltc_kernels.launch import split_width

# NVIDIA H100 SXM5 data sheet, dense (without sparsity).
HBM_BYTES_S = 3.35e12
FLOPS_S = {"fp32": 67e12, "tf32": 494e12, "half": 989e12}
MULTIPROCESSORS = 132
# Not in the data sheet; about what microbenchmarks report for reads that hit the L2 cache.
L2_BYTES_S = 5.5e12
L2_BYTES_CLOCK_SM = 64
CLOCK_HZ = 1.7e9
# The host's and the device's share of one launch, without a CUDA graph.
LAUNCH_S = 5e-6
LAUNCHES_BY_LAYERS = 19  # 4 for the atom table, 3 a layer
LAUNCHES_AROUND_ONE = 3  # find the largest molecule and bring its size to the host

Arithmetic = Literal["fp32", "tf32", "half"]

ATOMS, BONDS = 30, 32  # of a drug-like molecule
HIDDEN, FEED_FORWARD, QFORMER_LAYERS, CROSS_LAYERS = 768, 3072, 12, 6


@dataclass(frozen=True)
class Part:
    """One step for one molecule."""

    name: str
    flops: float
    traffic: float
    """Bytes through HBM."""
    l2_traffic: float = 0.0
    """Bytes from the L2 cache, where they bound the step."""

    def seconds(self, arithmetic: Arithmetic) -> float:
        """Least time, all multiprocessors busy."""
        return max(
            self.flops / FLOPS_S[arithmetic],
            self.traffic / HBM_BYTES_S,
            self.l2_traffic / L2_BYTES_S,
        )

    def bound(self, arithmetic: Arithmetic) -> str:
        """What it is that takes the time."""
        times = {
            "arithmetic": self.flops / FLOPS_S[arithmetic],
            "HBM": self.traffic / HBM_BYTES_S,
            "L2": self.l2_traffic / L2_BYTES_S,
        }
        return max(times, key=lambda name: times[name])


def gin_by_layers(itemsize: int) -> list[Part]:
    """Neighbour sums (our kernel) and linear layers (the library), 5 layers."""
    edges = 2 * BONDS
    sums = Part(
        "GIN neighbour sums (aggregate)",
        flops=LAYERS * 2 * DIM * (edges + ATOMS),
        traffic=LAYERS * (2 * ATOMS * DIM * itemsize + 8 * edges),
    )
    linear = Part(
        "GIN linear layers (library)",
        flops=LAYERS * 2 * 2 * ATOMS * DIM * INNER,
        traffic=LAYERS * 2 * ATOMS * (DIM + INNER) * itemsize,
    )
    return [sums, linear]


def gin_one_launch(itemsize: int, tiles: int = 1) -> Part:
    """The whole stack as `gin_molecule_kernel` computes it, padding included."""
    width, inner = sum(split_width(DIM)), round_up(INNER, INNER_MULTIPLE)
    rows = tiles * TILE_ATOMS
    layer = 2 * rows * width * (2 * inner + rows + CODES)
    weights = LAYERS * (2 * width * inner + CODES * width) * itemsize
    return Part(
        f"GIN in one launch (gin, {rows} atoms)",
        flops=LAYERS * layer,
        traffic=ATOMS * DIM * itemsize + 8 * ATOMS + 16 * BONDS,
        l2_traffic=tiles * weights,
    )


def readout(itemsize: int) -> Part:
    """Mean and LayerNorm."""
    return Part("Read-out (readout)", 8 * (ATOMS + 1) * DIM, (2 * ATOMS + 1) * DIM * itemsize)


def cross_attention(itemsize: int) -> list[Part]:
    """The 6 cross-attentions: our kernel, and the library products around it."""
    rows, tokens, head_dim = HEADS * QUERIES, ATOMS + 1, HIDDEN // HEADS
    kernel = Part(
        "Cross-attention (attention)",
        flops=CROSS_LAYERS * 2 * 2 * rows * tokens * DIM,
        traffic=CROSS_LAYERS * (2 * rows + tokens) * DIM * itemsize,
    )
    absorb = 2 * 2 * rows * head_dim * DIM
    project = 2 * 2 * QUERIES * HIDDEN * HIDDEN
    around = Part(
        "Cross-attention, products around it (library)",
        flops=CROSS_LAYERS * (absorb + project),
        traffic=CROSS_LAYERS * (2 * rows * DIM + 6 * QUERIES * HIDDEN) * itemsize,
    )
    return [kernel, around]


def rest_of_qformer(itemsize: int) -> Part:
    """Self-attention and feed-forward of 12 layers on 8 queries."""
    self_attention = 4 * 2 * QUERIES * HIDDEN * HIDDEN + 2 * 2 * QUERIES * QUERIES * HIDDEN
    feed_forward = 2 * 2 * QUERIES * HIDDEN * FEED_FORWARD
    passed = QUERIES * (14 * HIDDEN + 2 * FEED_FORWARD) * itemsize
    return Part(
        "Q-Former, all else (library)",
        flops=QFORMER_LAYERS * (self_attention + feed_forward),
        traffic=QFORMER_LAYERS * passed,
    )


def encoder(itemsize: int) -> list[Part]:
    """Everything for one molecule, layer by layer."""
    return [
        *gin_by_layers(itemsize),
        readout(itemsize),
        *cross_attention(itemsize),
        rest_of_qformer(itemsize),
    ]


def gin_latency(batch: int, tiles: int | None) -> float:
    """Least time for the GIN stack of a batch in half precision, seconds.

    Args:
        batch: Molecules of 30 atoms.
        tiles: Of a molecule in one launch; None for layer by layer.
    """
    if tiles is None:
        work = batch * sum(part.seconds("half") for part in gin_by_layers(2))
        return max(LAUNCHES_BY_LAYERS * LAUNCH_S, work)
    launches = 1 if batch == 1 else 1 + LAUNCHES_AROUND_ONE
    weights = gin_one_launch(2, tiles).l2_traffic
    alone = weights / (L2_BYTES_CLOCK_SM * CLOCK_HZ)
    full_waves, rest = divmod(batch, MULTIPROCESSORS)
    waves = [MULTIPROCESSORS] * full_waves + [rest] * (rest > 0)
    busy = sum(max(alone, molecules * weights / L2_BYTES_S) for molecules in waves)
    return launches * LAUNCH_S + busy
