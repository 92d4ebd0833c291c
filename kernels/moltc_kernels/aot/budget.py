"""Hard limits on kernels' resources, and a committed budget that detects regressions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from moltc_kernels.aot.build import KernelStatistics
from moltc_kernels.aot.configurations import KernelConfiguration
from moltc_kernels.aot.devices import DEVICES

PATH = Path(__file__).with_name("budget.json")

LESS_IS_BETTER = ("registers", "spill_bytes", "stack_bytes", "shared_bytes")
MORE_IS_BETTER = ("wide_loads", "tensor_instructions")


class Budget(NamedTuple):
    """Recorded statistics by configuration, and the Triton release that compiled them."""

    triton: str
    kernels: dict[str, KernelStatistics]

    @classmethod
    def read(cls, path: Path = PATH) -> Budget:
        """Read a budget file; by default the committed one."""
        content = json.loads(path.read_text())
        kernels = {name: KernelStatistics(**fields) for name, fields in content["kernels"].items()}
        return cls(content["triton"], kernels)

    def write(self, path: Path = PATH) -> None:
        """Write a budget file with one kernel per line, which keeps diffs readable."""
        lines = [
            f"    {json.dumps(name)}: {json.dumps(asdict(self.kernels[name]))}"
            for name in sorted(self.kernels)
        ]
        kernels = ",\n".join(lines)
        version = json.dumps(self.triton)
        path.write_text(f'{{\n  "triton": {version},\n  "kernels": {{\n{kernels}\n  }}\n}}\n')


def limit_violations(configuration: KernelConfiguration, statistics: KernelStatistics) -> list[str]:
    """Describe each hard limit that a kernel violates, whatever the budget says."""
    limit = DEVICES[configuration.target].max_shared
    violations = []
    if statistics.spill_bytes:
        violations.append(f"spills {statistics.spill_bytes} bytes of registers")
    if statistics.stack_bytes:
        violations.append(f"uses {statistics.stack_bytes} bytes of stack")
    if statistics.shared_bytes > limit:
        violations.append(
            f"uses {statistics.shared_bytes} bytes of shared memory, the device has {limit}"
        )
    if configuration.wide_rows and not statistics.wide_loads:
        violations.append("has no 128-bit load, though its rows are aligned for it")
    if configuration.tensor_cores and not statistics.tensor_instructions:
        violations.append("has no tensor-core instruction")
    if statistics.serialized:
        violations.append("has serialized matrix instructions (ptxas C75xx)")
    return [f"{configuration.name} {violation}" for violation in violations]


def regressions(
    recorded: Mapping[str, KernelStatistics], built: Mapping[str, KernelStatistics]
) -> list[str]:
    """Describe each kernel that is worse than the budget, missing from it, or only in it."""
    lines = [f"{name} is not in the budget" for name in built if name not in recorded]
    lines += [f"{name} is only in the budget" for name in recorded if name not in built]
    for name in sorted(recorded.keys() & built.keys()):
        for field in (*LESS_IS_BETTER, *MORE_IS_BETTER):
            before, now = getattr(recorded[name], field), getattr(built[name], field)
            if now > before if field in LESS_IS_BETTER else now < before:
                lines.append(f"{name}: {field} {before} -> {now}")
    return lines
