"""What our Triton kernels cost, as far as it can be known without a GPU.

Builds every shipped kernel ahead of time, and writes what the assemblers say (registers, spills,
shared memory, tensor-core instructions), the estimated occupancy, and the roofline of one molecule.
Everything in it is computed; nothing is measured.

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
    """Build, compute, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT)
    out = parser.parse_args().out
    sections = [*introduction(), *builds(), *rooflines(), *one_launch()]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(sections) + "\n")
    print(f"wrote {out}")


def introduction() -> Iterator[str]:
    """What this is and is not."""
    yield "# The Triton kernels on paper"
    yield ""
    yield (
        "**Computed, not measured**: no GPU took part. Written by "
        f"`python benchmarks/kernels_aot.py` with Triton {triton.__version__} and the assemblers "
        "it brings."
    )
    yield ""


def builds() -> Iterator[str]:
    """A row for every kernel, dtype and device."""
    yield "## Ahead-of-time builds"
    yield ""
    yield (
        "Registers, spills and stack are of a thread, shared memory of a block. Occupancy is the "
        "estimated share of a multiprocessor's warps that can be resident. gfx942 registers are "
        "vector and accumulation registers together (512 at most). 128-bit loads are instructions; "
        "rows of 300 half-precision numbers have room for 304, except in `aggregate dim300`, which "
        "is for states that come from elsewhere."
    )
    yield ""
    known = configurations()
    rows = []
    for name, got in build_all().items():
        configuration = known[name]
        device = DEVICES[configuration.target]
        resident = occupancy(
            device, got.registers, got.shared_bytes, configuration.launch.num_warps
        )
        rows.append(
            (
                configuration.kernel,
                configuration.variant,
                configuration.dtype,
                f"{configuration.target} ({device.name})",
                configuration.launch.num_warps,
                got.registers,
                got.spill_bytes,
                got.stack_bytes,
                f"{got.shared_bytes:,}",
                got.wide_loads,
                got.tensor_instructions,
                f"{resident:.0%}",
            )
        )
    rows.sort(key=lambda row: row[:4])
    yield from table(
        "kernel | for | dtype | device | warps | registers | spill, B | stack, B | shared, B | "
        "128-bit loads | tensor instr. | occupancy",
        rows,
    )


def rooflines() -> Iterator[str]:
    """A row for every part of the encoder and way of multiplying."""
    yield "## One molecule, and 1,000, on an H100"
    yield ""
    peaks = ", ".join(f"{name} {peak / 1e12:.0f}" for name, peak in roofline.FLOPS_S.items())
    yield (
        f"A molecule of {roofline.ATOMS} atoms and {roofline.BONDS} bonds at the published sizes: "
        "GIN 5 x 300/600, Q-Former 12 layers of 768 with 6 cross-attentions, 8 queries. Peaks "
        f"(data sheet, SXM5, dense): HBM {roofline.HBM_BYTES_S / 1e12} TB/s; {peaks} TFLOP/s. "
        "Weights are read once for a whole batch and not counted. A roofline is a bound from "
        "below: "
        "real kernels reach a part of it."
    )
    yield ""
    kinds: list[tuple[str, roofline.Arithmetic, int]] = [
        ("fp32", "fp32", 4),
        ("fp32 as tf32", "tf32", 4),
        ("bf16, fp16", "half", 2),
    ]
    rows = []
    for label, arithmetic, itemsize in kinds:
        parts = roofline.encoder(itemsize)
        for part in parts:
            rows.append(
                (
                    label,
                    part.name,
                    f"{part.flops / 1e6:.2f}",
                    f"{part.traffic / 1e3:.0f}",
                    part.bound(arithmetic),
                    f"{part.seconds(arithmetic) * 1e6:.2f}",
                )
            )
        seconds = sum(part.seconds(arithmetic) for part in parts)
        flops, traffic = sum(p.flops for p in parts), sum(p.traffic for p in parts)
        rows.append(
            (
                label,
                "**whole encoder**",
                f"{flops / 1e6:.2f}",
                f"{traffic / 1e3:.0f}",
                "",
                f"**{seconds * 1e6:.2f}**",
            )
        )
    # Microseconds a molecule are milliseconds a thousand.
    yield from table(
        "dtype | part | MFLOP a molecule | kB a molecule | bound by | ms per 1,000 molecules", rows
    )


def one_launch() -> Iterator[str]:
    """Both forms of the GIN stack over the batch size."""
    yield "## Where the GIN stack in one launch pays"
    yield ""
    part = roofline.gin_one_launch(2)
    yield (
        "Half precision. One launch reads all weights for every molecule from the L2 cache "
        f"({part.l2_traffic / 1e6:.1f} MB a tile of {roofline.TILE_ATOMS} atoms) and spends "
        f"{part.flops / 1e6:.0f} MFLOP on a padded tile; from two molecules on, "
        f"{roofline.LAUNCHES_AROUND_ONE} more launches find the largest. Layer by layer is "
        f"{roofline.LAUNCHES_BY_LAYERS} launches or its roofline, whichever is longer. Assumed: L2 "
        f"{roofline.L2_BYTES_S / 1e12} TB/s in all, {roofline.L2_BYTES_CLOCK_SM} bytes a clock for "
        f"one multiprocessor, {roofline.LAUNCH_S * 1e6:.0f} us a launch (no CUDA graph). "
        "`fused.tiles_for` takes one launch up to half a wave: a tile for every second "
        "multiprocessor, 66 molecules of up to 32 atoms or 33 of up to 64."
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
        "molecules | by layers, us | one launch, up to 32 atoms, us | one launch, 33-64 atoms, us",
        rows,
    )


def table(header: str, rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    """Markdown; the header's cells are divided by bars."""
    yield f"| {header} |"
    yield "|" + "---|" * len(header.split("|"))
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"
    yield ""


if __name__ == "__main__":
    main()
