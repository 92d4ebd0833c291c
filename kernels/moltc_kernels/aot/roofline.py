"""Lower bounds of the encoder's time on an H100, computed from counted work and published peaks.

Nothing is measured. A step takes as long as the slower of its arithmetic and its memory traffic.
HBM traffic assumes that every tensor is read once and written once. Weights are counted only in
steps that load them again for every molecule; elsewhere a whole batch shares one load, whose cost
per molecule is negligible.
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
# Not in the data sheet: typical results of microbenchmarks for reads that hit the L2 cache.
L2_BYTES_S = 5.5e12
L2_BYTES_CLOCK_SM = 64
CLOCK_HZ = 1.7e9
# Host and device time of one launch without a CUDA graph.
LAUNCH_S = 5e-6
LAUNCHES_LAYER_BY_LAYER = 19  # 4 for the atom table and 3 per layer
LAUNCHES_AROUND_ONE = 3  # to find the largest molecule and copy its size to the host

Arithmetic = Literal["fp32", "tf32", "half"]

ATOMS, BONDS = 30, 32  # A typical drug-like molecule.
HIDDEN, FEED_FORWARD, QFORMER_LAYERS, CROSS_LAYERS = 768, 3072, 12, 6


@dataclass(frozen=True)
class EncoderStep:
    """Work of one step of the encoder for one molecule."""

    name: str
    flops: float
    traffic: float
    """Bytes read from and written to HBM."""
    l2_traffic: float = 0.0
    """Bytes read from the L2 cache, if they can bound the step."""

    def seconds(self, arithmetic: Arithmetic) -> float:
        """Compute the lower bound of the time, in seconds, with all multiprocessors busy."""
        return max(
            self.flops / FLOPS_S[arithmetic],
            self.traffic / HBM_BYTES_S,
            self.l2_traffic / L2_BYTES_S,
        )

    def bound(self, arithmetic: Arithmetic) -> str:
        """Name the resource that bounds the time: ``arithmetic``, ``HBM`` or ``L2``."""
        times = {
            "arithmetic": self.flops / FLOPS_S[arithmetic],
            "HBM": self.traffic / HBM_BYTES_S,
            "L2": self.l2_traffic / L2_BYTES_S,
        }
        return max(times, key=lambda name: times[name])


def gin_layer_by_layer(itemsize: int) -> list[EncoderStep]:
    """Count neighbor sums (kernel) and linear layers (library) of the GIN stack layer by layer."""
    edges = 2 * BONDS
    sums = EncoderStep(
        "GIN neighbor sums (aggregate)",
        flops=LAYERS * 2 * DIM * (edges + ATOMS),
        traffic=LAYERS * (2 * ATOMS * DIM * itemsize + 8 * edges),
    )
    linear = EncoderStep(
        "GIN linear layers (library)",
        flops=LAYERS * 2 * 2 * ATOMS * DIM * INNER,
        traffic=LAYERS * 2 * ATOMS * (DIM + INNER) * itemsize,
    )
    return [sums, linear]


def gin_one_launch(itemsize: int, tiles: int = 1) -> EncoderStep:
    """Count the whole GIN stack as `gin_molecule_kernel` computes it, padding included."""
    width, inner = sum(split_width(DIM)), round_up(INNER, INNER_MULTIPLE)
    rows = tiles * TILE_ATOMS
    layer = 2 * rows * width * (2 * inner + rows + CODES)
    weights = LAYERS * (2 * width * inner + CODES * width) * itemsize
    return EncoderStep(
        f"GIN in one launch (gin, {rows} atoms)",
        flops=LAYERS * layer,
        traffic=ATOMS * DIM * itemsize + 8 * ATOMS + 16 * BONDS,
        l2_traffic=tiles * weights,
    )


def readout(itemsize: int) -> EncoderStep:
    """Count mean pooling and LayerNorm."""
    return EncoderStep(
        "Read-out (readout)", 8 * (ATOMS + 1) * DIM, (2 * ATOMS + 1) * DIM * itemsize
    )


def cross_attention(itemsize: int) -> list[EncoderStep]:
    """Count the cross-attentions: the kernel, and the library's products around it."""
    rows, tokens, head_dim = HEADS * QUERIES, ATOMS + 1, HIDDEN // HEADS
    kernel = EncoderStep(
        "Cross-attention (attention)",
        flops=CROSS_LAYERS * 2 * 2 * rows * tokens * DIM,
        traffic=CROSS_LAYERS * (2 * rows + tokens) * DIM * itemsize,
    )
    absorb = 2 * 2 * rows * head_dim * DIM
    project = 2 * 2 * QUERIES * HIDDEN * HIDDEN
    around = EncoderStep(
        "Cross-attention, products around it (library)",
        flops=CROSS_LAYERS * (absorb + project),
        traffic=CROSS_LAYERS * (2 * rows * DIM + 6 * QUERIES * HIDDEN) * itemsize,
    )
    return [kernel, around]


def rest_of_qformer(itemsize: int) -> EncoderStep:
    """Count self-attention and feed-forward layers of the Q-Former."""
    self_attention = 4 * 2 * QUERIES * HIDDEN * HIDDEN + 2 * 2 * QUERIES * QUERIES * HIDDEN
    feed_forward = 2 * 2 * QUERIES * HIDDEN * FEED_FORWARD
    activations = QUERIES * (14 * HIDDEN + 2 * FEED_FORWARD) * itemsize
    return EncoderStep(
        "Q-Former, other steps (library)",
        flops=QFORMER_LAYERS * (self_attention + feed_forward),
        traffic=QFORMER_LAYERS * activations,
    )


def encoder(itemsize: int) -> list[EncoderStep]:
    """Count all steps of the encoder, with the GIN stack layer by layer."""
    return [
        *gin_layer_by_layer(itemsize),
        readout(itemsize),
        *cross_attention(itemsize),
        rest_of_qformer(itemsize),
    ]


def gin_latency(batch: int, tiles: int | None) -> float:
    """Compute a lower bound of the GIN stack's time for a batch in half precision, in seconds.

    Args:
        batch: Number of molecules of 30 atoms.
        tiles: Tiles per molecule in one launch; None for layer by layer.
    """
    if tiles is None:
        work = batch * sum(step.seconds("half") for step in gin_layer_by_layer(2))
        return max(LAUNCHES_LAYER_BY_LAYER * LAUNCH_S, work)
    launches = 1 if batch == 1 else 1 + LAUNCHES_AROUND_ONE
    weights = gin_one_launch(2, tiles).l2_traffic
    seconds_alone = weights / (L2_BYTES_CLOCK_SM * CLOCK_HZ)
    full_waves, remainder = divmod(batch, MULTIPROCESSORS)
    waves = [MULTIPROCESSORS] * full_waves + [remainder] * (remainder > 0)
    busy = sum(max(seconds_alone, molecules * weights / L2_BYTES_S) for molecules in waves)
    return launches * LAUNCH_S + busy
