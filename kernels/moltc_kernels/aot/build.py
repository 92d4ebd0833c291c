"""Compile one configuration without a GPU and read what came out of it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import triton
from triton import knobs
from triton.compiler import ASTSource

from moltc_kernels.aot.configurations import Configuration, configurations
from moltc_kernels.aot.devices import DEVICES
from moltc_kernels.launch import TARGETS, Target


@dataclass(frozen=True)
class Statistics:
    """What a device's assembler says of a kernel."""

    registers: int
    """Of a thread; on AMD vector and accumulation registers together."""
    spill_bytes: int
    """Of a thread: registers that had to be put into memory."""
    stack_bytes: int
    """Of a thread: local memory, spilled or not."""
    shared_bytes: int
    """Of a block."""
    wide_loads: int
    """Instructions that load 128 bits from global memory."""
    tensor_instructions: int
    """Matrix instructions of any kind."""
    serialized: bool = False
    """ptxas C7511 and its like: matrix instructions wait for one another."""


def build_all(
    targets: Sequence[Target] = TARGETS, processes: int | None = None
) -> dict[str, Statistics]:
    """Compile every configuration for some devices, several at a time."""
    names = [name for name, one in configurations().items() if one.target in targets]
    # Not forked: torch's threads and LLVM do not survive it.
    with ProcessPoolExecutor(processes or os.cpu_count(), get_context("spawn")) as pool:
        return dict(zip(names, pool.map(_build_named, names, chunksize=4), strict=True))


def _build_named(name: str) -> Statistics:
    return build(configurations()[name])


def build(configuration: Configuration) -> Statistics:
    """Compile with the bundled assemblers, on an empty cache.

    Raises:
        RuntimeError: If Triton interprets kernels in this process.
        triton.CompilationError: If the kernel does not compile for the device.
    """
    if knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET is set: nothing can be compiled in this process")
    device = DEVICES[configuration.target]
    log = io.StringIO()
    with tempfile.TemporaryDirectory() as cache, knobs.cache.scope(), knobs.nvidia.scope():
        knobs.cache.dir = cache
        knobs.nvidia.dump_ptxas_log = True
        with contextlib.redirect_stdout(log):
            kernel = triton.compile(
                _source(configuration), target=device.target, options=configuration.launch.options
            )
        if device.target.backend == "hip":
            return amd_statistics(kernel.asm["amdgcn"], kernel.metadata.shared)
        sass = _disassemble(kernel.asm["cubin"], Path(cache))
    return nvidia_statistics(log.getvalue(), sass, kernel.metadata.shared)


def _source(configuration: Configuration) -> ASTSource:
    names = configuration.function.arg_names
    position = {name: (names.index(name),) for name in names}
    pointers = [name for name, kind in configuration.signature.items() if kind.startswith("*")]
    return ASTSource(
        configuration.function,
        {name: configuration.signature.get(name, "constexpr") for name in names},
        {position[name]: value for name, value in configuration.constants.items()},
        # What a launch finds out by itself: torch's allocations are aligned.
        {position[name]: [["tt.divisibility", 16]] for name in pointers},
    )


def _disassemble(cubin: bytes, folder: Path) -> str:
    path = folder / "kernel.cubin"
    path.write_bytes(cubin)
    command = [knobs.nvidia.nvdisasm.path, "-c", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def nvidia_statistics(ptxas_log: str, sass: str, shared_bytes: int) -> Statistics:
    """Read ``ptxas -v`` and the disassembly."""
    return Statistics(
        registers=_number(r"Used (\d+) registers", ptxas_log),
        spill_bytes=_number(r"(\d+) bytes spill stores", ptxas_log),
        stack_bytes=_number(r"(\d+) bytes stack frame", ptxas_log),
        shared_bytes=shared_bytes,
        # Straight into a register, or past them into shared memory (LDGSTS).
        wide_loads=len(re.findall(r"\bLDG(?:STS)?\.\S*128", sass)),
        # mma, wgmma and tcgen05 in this order.
        tensor_instructions=len(re.findall(r"\b(?:HMMA|HGMMA|UTC\w*MMA)\b", sass)),
        serialized=re.search(r"\(C75\d\d\)|wgmma.*serialized", ptxas_log) is not None,
    )


def amd_statistics(assembly: str, shared_bytes: int) -> Statistics:
    """Read the metadata at the end of the assembly, and its instructions."""
    # Of a scalar register that is spilled, LLVM keeps a copy in a lane: counted all the same.
    spilled = sum(_number(rf"\.{kind}_spill_count:\s*(\d+)", assembly) for kind in ("vgpr", "sgpr"))
    return Statistics(
        registers=_number(r"\.vgpr_count:\s*(\d+)", assembly),
        spill_bytes=4 * spilled,
        stack_bytes=_number(r"\.private_segment_fixed_size:\s*(\d+)", assembly),
        shared_bytes=shared_bytes,
        wide_loads=len(re.findall(r"\b(?:global|buffer)_load_dwordx4\b", assembly)),
        tensor_instructions=len(re.findall(r"\bv_mfma_\w+", assembly)),
    )


def _number(pattern: str, text: str) -> int:
    found: Any = re.search(pattern, text)
    if found is None:
        raise ValueError(f"no {pattern!r} in what the assembler says")
    return int(found[1])
