"""Compile kernels without a GPU and read resource statistics from the assembler's output."""

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

import triton
from triton import knobs
from triton.compiler import ASTSource

from moltc_kernels.aot.configurations import KernelConfiguration, configurations
from moltc_kernels.aot.devices import DEVICES
from moltc_kernels.launch import TARGETS, Target


@dataclass(frozen=True)
class KernelStatistics:
    """Resources of a compiled kernel, from the device's assembler."""

    registers: int
    """Registers per thread; on AMD the sum of vector and accumulation registers."""
    spill_bytes: int
    """Bytes of registers per thread that are spilled to memory."""
    stack_bytes: int
    """Bytes of local memory per thread, for spills and other uses."""
    shared_bytes: int
    """Bytes of shared memory per block."""
    wide_loads: int
    """Number of instructions that load 128 bits from global memory."""
    tensor_instructions: int
    """Number of matrix instructions of any kind."""
    serialized: bool = False
    """Whether ptxas warns (C7511 and similar) that matrix instructions wait for each other."""


def build_all(
    targets: Sequence[Target] = TARGETS, processes: int | None = None
) -> dict[str, KernelStatistics]:
    """Compile every configuration for some device families in parallel.

    Args:
        targets: Device families.
        processes: Number of processes; by default one per CPU.

    Returns:
        Statistics by the configuration's name.
    """
    names = [name for name, config in configurations().items() if config.target in targets]
    # Spawned, because torch's threads and LLVM do not survive a fork.
    with ProcessPoolExecutor(processes or os.cpu_count(), get_context("spawn")) as pool:
        return dict(zip(names, pool.map(_build_named, names, chunksize=4), strict=True))


def _build_named(name: str) -> KernelStatistics:
    return build(configurations()[name])


def build(configuration: KernelConfiguration) -> KernelStatistics:
    """Compile a kernel with the assemblers that Triton bundles, with an empty cache.

    Raises:
        RuntimeError: If Triton interprets kernels in this process.
        triton.CompilationError: If the kernel does not compile for the device.
    """
    if knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET is set; unset it to compile kernels")
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


def _source(configuration: KernelConfiguration) -> ASTSource:
    names = configuration.function.arg_names
    position = {name: (names.index(name),) for name in names}
    pointers = [name for name, kind in configuration.signature.items() if kind.startswith("*")]
    return ASTSource(
        configuration.function,
        {name: configuration.signature.get(name, "constexpr") for name in names},
        {position[name]: value for name, value in configuration.constants.items()},
        # A launch detects this specialization itself, since torch's allocations are aligned.
        {position[name]: [["tt.divisibility", 16]] for name in pointers},
    )


def _disassemble(cubin: bytes, folder: Path) -> str:
    path = folder / "kernel.cubin"
    path.write_bytes(cubin)
    command = [knobs.nvidia.nvdisasm.path, "-c", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def nvidia_statistics(ptxas_log: str, sass: str, shared_bytes: int) -> KernelStatistics:
    """Read statistics from the output of ``ptxas -v`` and the disassembly.

    Raises:
        ValueError: If ``ptxas`` does not report a value.
    """
    return KernelStatistics(
        registers=_number(r"Used (\d+) registers", ptxas_log),
        spill_bytes=_number(r"(\d+) bytes spill stores", ptxas_log),
        stack_bytes=_number(r"(\d+) bytes stack frame", ptxas_log),
        shared_bytes=shared_bytes,
        # LDG loads into registers, LDGSTS directly into shared memory.
        wide_loads=len(re.findall(r"\bLDG(?:STS)?\.\S*128", sass)),
        # The instructions of mma, wgmma and tcgen05.
        tensor_instructions=len(re.findall(r"\b(?:HMMA|HGMMA|UTC\w*MMA)\b", sass)),
        serialized=re.search(r"\(C75\d\d\)|wgmma.*serialized", ptxas_log) is not None,
    )


def amd_statistics(assembly: str, shared_bytes: int) -> KernelStatistics:
    """Read statistics from the metadata and the instructions of AMD assembly.

    Raises:
        ValueError: If the metadata lack a value.
    """
    # LLVM spills scalar registers to lanes of vector registers; they are counted as well.
    spilled = sum(_number(rf"\.{kind}_spill_count:\s*(\d+)", assembly) for kind in ("vgpr", "sgpr"))
    return KernelStatistics(
        registers=_number(r"\.vgpr_count:\s*(\d+)", assembly),
        spill_bytes=4 * spilled,
        stack_bytes=_number(r"\.private_segment_fixed_size:\s*(\d+)", assembly),
        shared_bytes=shared_bytes,
        wide_loads=len(re.findall(r"\b(?:global|buffer)_load_dwordx4\b", assembly)),
        tensor_instructions=len(re.findall(r"\bv_mfma_\w+", assembly)),
    )


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"the assembler's output does not match {pattern!r}")
    return int(match[1])
