"""Hard limits that every kernel keeps, and a committed record that no kernel may fall behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from moltc_kernels.aot.build import Statistics
from moltc_kernels.aot.configurations import Configuration
from moltc_kernels.aot.devices import DEVICES

PATH = Path(__file__).with_name("budget.json")

LESS_IS_BETTER = ("registers", "spill_bytes", "stack_bytes", "shared_bytes")
MORE_IS_BETTER = ("wide_loads", "tensor_instructions")


class Budget(NamedTuple):
    """The record: statistics by configuration, and the compiler they are of."""

    triton: str
    kernels: dict[str, Statistics]

    @classmethod
    def read(cls, path: Path = PATH) -> Budget:
        """Load the committed file."""
        content = json.loads(path.read_text())
        kernels = {name: Statistics(**numbers) for name, numbers in content["kernels"].items()}
        return cls(content["triton"], kernels)

    def write(self, path: Path = PATH) -> None:
        """Save, a kernel a line, so that a change reads well in a diff."""
        lines = [
            f"    {json.dumps(name)}: {json.dumps(asdict(self.kernels[name]))}"
            for name in sorted(self.kernels)
        ]
        kernels = ",\n".join(lines)
        version = json.dumps(self.triton)
        path.write_text(f'{{\n  "triton": {version},\n  "kernels": {{\n{kernels}\n  }}\n}}\n')


def broken_limits(configuration: Configuration, got: Statistics) -> list[str]:
    """What no kernel may do, whatever the record says; one line for each offence."""
    limit = DEVICES[configuration.target].max_shared
    offences = []
    if got.spill_bytes:
        offences.append(f"spills {got.spill_bytes} bytes of registers")
    if got.stack_bytes:
        offences.append(f"uses {got.stack_bytes} bytes of stack")
    if got.shared_bytes > limit:
        offences.append(f"wants {got.shared_bytes} bytes of shared memory, the device has {limit}")
    if configuration.wide_rows and not got.wide_loads:
        offences.append("has no 128-bit load, though its rows are aligned for it")
    if configuration.tensor_cores and not got.tensor_instructions:
        offences.append("has no tensor-core instruction")
    if got.serialized:
        offences.append("has serialised matrix instructions (ptxas C75xx)")
    return [f"{configuration.name} {offence}" for offence in offences]


def regressions(recorded: Mapping[str, Statistics], built: Mapping[str, Statistics]) -> list[str]:
    """Where kernels are worse than the record, and where the record does not fit; one line each."""
    found = [f"{name} is not in the budget" for name in built if name not in recorded]
    found += [f"{name} is in the budget only" for name in recorded if name not in built]
    for name in sorted(recorded.keys() & built.keys()):
        for field in (*LESS_IS_BETTER, *MORE_IS_BETTER):
            before, now = getattr(recorded[name], field), getattr(built[name], field)
            if now > before if field in LESS_IS_BETTER else now < before:
                found.append(f"{name}: {field} {before} -> {now}")
    return found
