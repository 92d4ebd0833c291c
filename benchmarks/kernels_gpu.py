"""Compare the Triton kernels with the naive operations on the same GPU.

Figures are medians of CUDA-event times (`triton.testing.do_bench`), for drug-like molecules of
about 30 atoms and the published sizes. Each case is checked against float64 before it is timed; a
wrong result ends the run. The output is in long format, one row per measurement.

    python -m benchmarks.kernels_gpu --csv kernels_gpu.csv
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from moltc_kernels.aggregate import aggregate
from moltc_kernels.cross_attention import cross_attention
from moltc_kernels.dispatch import KERNELS_ENV
from moltc_kernels.gin_stack import gin_stack
from moltc_kernels.readout import readout
from tests.kernels.cases import (
    BOND_CODES,
    double,
    gin_weights,
    key_value,
    molecules,
    rms_ratio,
)

BATCHES = (1, 16, 66, 256, 1024)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Largest RMS ratio of a correct result.
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 3e-3}


class Case(NamedTuple):
    """Operation with its arguments."""

    operation: str
    batch: int
    dtype: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def cases() -> Iterator[Case]:
    """Generate every operation at every batch size and dtype, at the published widths."""
    torch.manual_seed(0)
    for size in BATCHES:
        batch = molecules([22 + i % 17 for i in range(size)]).to("cuda")
        atoms = batch.atoms.shape[0]
        for name, dtype in DTYPES.items():
            h = torch.randn(atoms, 300).to("cuda", dtype)
            table = torch.randn(BOND_CODES, 300).to("cuda", dtype)
            yield Case("aggregate", size, name, aggregate, (h, batch.bonds, table))
            gain, shift = torch.randn(2, 300).to("cuda", dtype)
            yield Case("readout", size, name, readout, (h, batch.offsets, gain, shift, 1e-5))
            query = torch.randn(size, 8, 12, 64).to("cuda", dtype)
            layers = key_value(12, 64, 300, dtype)
            layers = type(layers)(*(t.cuda() for t in layers))
            attention = (query, h, batch.offsets, layers)
            yield Case("cross_attention", size, name, cross_attention, attention)
            weights = gin_weights(300, 600, 5, dtype)
            fields = type(weights).__dataclass_fields__
            weights = type(weights)(**{key: getattr(weights, key).cuda() for key in fields})
            yield Case("gin_stack", size, name, gin_stack, (*batch, weights))


def measure(case: Case) -> Iterator[dict[str, Any]]:
    """Check a case, then time both implementations and yield a row for each.

    Raises:
        SystemExit: If the kernel's result is wrong.
    """

    def run() -> Tensor:
        result = case.function(*case.arguments)
        return result[0] if isinstance(result, tuple) else result

    exact = [
        double(a) if isinstance(a, Tensor | tuple) or hasattr(a, "num_layers") else a
        for a in case.arguments
    ]
    expected = case.function(*exact)
    error = rms_ratio(run(), expected[0] if isinstance(expected, tuple) else expected)
    if not error <= TOLERANCE[case.dtype]:
        raise SystemExit(f"{case.operation} {case.dtype} x{case.batch}: RMS ratio {error:.1e}")
    for implementation in ("triton", "naive"):
        os.environ[KERNELS_ENV] = implementation
        low, median, high = triton.testing.do_bench(run, quantiles=[0.2, 0.5, 0.8])
        yield {
            "operation": case.operation,
            "implementation": implementation,
            "dtype": case.dtype,
            "molecules": case.batch,
            "p20_us": round(low * 1e3, 1),
            "p50_us": round(median * 1e3, 1),
            "p80_us": round(high * 1e3, 1),
            "rms_ratio": f"{error:.1e}" if implementation == "triton" else "",
            "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "triton": triton.__version__,
        }
    del os.environ[KERNELS_ENV]


def main() -> int:
    """Run the command line.

    Returns:
        Exit status: 0 after measuring, 2 without a GPU.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--csv", type=Path, help="File to write the rows to, besides the printed table."
    )
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print(
            "This machine has no GPU to measure on. benchmarks/kernels_aot.py writes the figures "
            "that can be computed without one.",
            file=sys.stderr,
        )
        return 2
    rows = []
    for case in cases():
        for row in measure(case):
            rows.append(row)
            print(
                f"{row['operation']:16} {row['dtype']} x{row['molecules']:<5} "
                f"{row['implementation']:6} {row['p50_us']:>9} us",
                flush=True,
            )
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
