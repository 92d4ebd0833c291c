"""Compute resources and lower bounds of the Triton kernels without a GPU.

The script builds every shipped kernel ahead of time and writes the assemblers' statistics
(registers, spills, shared memory, tensor-core instructions), the estimated occupancy, and the
roofline of one molecule. All figures are computed; nothing is measured.

    python benchmarks/kernels_aot.py --out benchmarks/results/kernels_aot.md
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import triton

from moltc_kernels.aot import roofline
from moltc_kernels.aot.build import build_all
from moltc_kernels.aot.configurations import configurations
from moltc_kernels.aot.devices import DEVICES, occupancy

DEFAULT = Path(__file__).parent / "results" / "kernels_aot.md"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=DEFAULT, help="Markdown file to write; default: %(default)s."
    )
    out = parser.parse_args().out
    lines = [*introduction(), *builds_section(), *roofline_section(), *one_launch_section()]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n")
    print(f"wrote {out}")


def introduction() -> Iterator[str]:
    """Write the title and how the figures were computed."""
    yield "# Computed figures of the Triton kernels"
    yield ""
    yield (
        "**Computed, not measured**: no GPU was used. Written by "
        f"`python benchmarks/kernels_aot.py` with Triton {triton.__version__} and the assemblers "
        "that it bundles."
    )
    yield ""


def builds_section() -> Iterator[str]:
    """Write a table with a row per kernel, dtype and device."""
    yield "## Ahead-of-time builds"
    yield ""
    yield (
        "Registers, spills and stack are per thread, shared memory is per block. Occupancy is the "
        "estimated share of a multiprocessor's warps that can be resident. gfx942 registers are "
        "the sum of vector and accumulation registers (512 at most). 128-bit loads are numbers of "
        "instructions; rows of 300 half-precision numbers are padded to 304, except in "
        "`aggregate dim300`, which takes states that other code has computed."
    )
    yield ""
    configs_by_name = configurations()
    rows = []
    for name, statistics in build_all().items():
        configuration = configs_by_name[name]
        device = DEVICES[configuration.target]
        resident = occupancy(
            device, statistics.registers, statistics.shared_bytes, configuration.launch.num_warps
        )
        rows.append(
            (
                configuration.kernel,
                configuration.variant,
                configuration.dtype,
                f"{configuration.target} ({device.name})",
                configuration.launch.num_warps,
                statistics.registers,
                statistics.spill_bytes,
                statistics.stack_bytes,
                f"{statistics.shared_bytes:,}",
                statistics.wide_loads,
                statistics.tensor_instructions,
                f"{resident:.0%}",
            )
        )
    rows.sort(key=lambda row: row[:4])
    yield from table(
        "kernel | variant | dtype | device | warps | registers | spill, B | stack, B | shared, B | "
        "128-bit loads | tensor instr. | occupancy",
        rows,
    )


def roofline_section() -> Iterator[str]:
    """Write a table with a row per step of the encoder and arithmetic."""
    yield "## One molecule, and 1,000, on an H100"
    yield ""
    peaks = ", ".join(f"{name} {peak / 1e12:.0f}" for name, peak in roofline.FLOPS_S.items())
    yield (
        f"A molecule of {roofline.ATOMS} atoms and {roofline.BONDS} bonds at the published sizes: "
        "GIN 5 x 300/600, Q-Former 12 layers of 768 with 6 cross-attentions, 8 queries. Peaks "
        f"(data sheet, SXM5, dense): HBM {roofline.HBM_BYTES_S / 1e12} TB/s; {peaks} TFLOP/s. "
        "Weights are read once for a whole batch and not counted. A roofline is a lower bound of "
        "the time, which real kernels do not reach."
    )
    yield ""
    arithmetics: list[tuple[str, roofline.Arithmetic, int]] = [
        ("fp32", "fp32", 4),
        ("fp32 as tf32", "tf32", 4),
        ("bf16, fp16", "half", 2),
    ]
    rows = [row for kind in arithmetics for row in _roofline_rows(*kind)]
    # Microseconds per molecule are milliseconds per 1,000 molecules.
    yield from table(
        "dtype | step | MFLOP per molecule | kB per molecule | bound by | ms per 1,000 molecules",
        rows,
    )


def _roofline_rows(
    label: str, arithmetic: roofline.Arithmetic, itemsize: int
) -> Iterator[tuple[str, ...]]:
    steps = roofline.encoder(itemsize)
    for step in steps:
        yield (
            label,
            step.name,
            f"{step.flops / 1e6:.2f}",
            f"{step.traffic / 1e3:.0f}",
            step.bound(arithmetic),
            f"{step.seconds(arithmetic) * 1e6:.2f}",
        )
    yield (
        label,
        "**whole encoder**",
        f"{sum(step.flops for step in steps) / 1e6:.2f}",
        f"{sum(step.traffic for step in steps) / 1e3:.0f}",
        "",
        f"**{sum(step.seconds(arithmetic) for step in steps) * 1e6:.2f}**",
    )


def one_launch_section() -> Iterator[str]:
    """Write a table that compares both implementations of the GIN stack by batch size."""
    yield "## When the GIN stack in one launch is faster"
    yield ""
    step = roofline.gin_one_launch(2)
    yield (
        "Half precision. One launch reads all weights for every molecule from the L2 cache "
        f"({step.l2_traffic / 1e6:.1f} MB per tile of {roofline.TILE_ATOMS} atoms) and spends "
        f"{step.flops / 1e6:.0f} MFLOP on a padded tile; with two or more molecules, "
        f"{roofline.LAUNCHES_AROUND_ONE} more launches find the largest. Layer by layer takes "
        f"{roofline.LAUNCHES_LAYER_BY_LAYER} launches or its roofline, whichever is longer. "
        f"Assumptions: {roofline.L2_BYTES_S / 1e12} TB/s from the L2 cache in total, "
        f"{roofline.L2_BYTES_CLOCK_SM} bytes per clock for one multiprocessor, "
        f"{roofline.LAUNCH_S * 1e6:.0f} us per launch (no CUDA graph). `fused.select_tiles` "
        "chooses one launch up to half a wave: a tile for every second multiprocessor, 66 "
        "molecules of up to 32 atoms or 33 of up to 64."
    )
    yield ""
    rows = [
        (
            batch,
            f"{roofline.gin_latency(batch, None) * 1e6:.0f}",
            f"{roofline.gin_latency(batch, 1) * 1e6:.0f}",
            f"{roofline.gin_latency(batch, 2) * 1e6:.0f}",
        )
        for batch in (1, 16, 33, 66, 132, 264, 1024)
    ]
    yield from table(
        "molecules | layer by layer, us | one launch, up to 32 atoms, us | "
        "one launch, 33-64 atoms, us",
        rows,
    )


def table(header: str, rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    """Write a Markdown table.

    Args:
        header: Cells of the header, separated by bars.
        rows: Cells of each row.
    """
    yield f"| {header} |"
    yield "|" + "---|" * len(header.split("|"))
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"
    yield ""


if __name__ == "__main__":
    main()
