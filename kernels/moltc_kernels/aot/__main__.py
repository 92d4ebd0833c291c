"""Build every kernel ahead of time and check its resources, or record them as the budget."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence

import triton
from triton import knobs

from moltc_kernels.aot.budget import PATH, Budget, limit_violations, regressions
from moltc_kernels.aot.build import KernelStatistics, build_all
from moltc_kernels.aot.configurations import configurations
from moltc_kernels.launch import TARGETS, Target


def main() -> int:
    """Build the kernels and print each violated limit and each regression against the budget.

    Returns:
        Exit status: 0 without violations and regressions, 1 with any, 2 if kernels are interpreted.
    """
    arguments = _parse_arguments()
    targets = arguments.targets or list(TARGETS)
    if knobs.runtime.interpret:
        print("TRITON_INTERPRET is set; unset it to compile kernels", file=sys.stderr)
        return 2

    start = time.perf_counter()
    built = build_all(targets)
    configs_by_name = configurations()
    complaints = [
        line for name in built for line in limit_violations(configs_by_name[name], built[name])
    ]
    if arguments.check:
        complaints += _compare_with_budget(built, targets)
    elif not complaints:
        Budget(triton.__version__, built).write()
    for line in complaints:
        print(line, file=sys.stderr)
    verdict = f"{len(complaints)} complaints" if complaints else "all within limits and budget"
    print(f"{len(built)} kernels built in {time.perf_counter() - start:.0f} s: {verdict}")
    return 1 if complaints else 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m moltc_kernels.aot", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument(
        "--check", action="store_true", help="Compare with the limits and the budget."
    )
    action.add_argument(
        "--write", action="store_true", help="Write the budget if no limit is violated."
    )
    parser.add_argument(
        "--target",
        dest="targets",
        action="append",
        choices=TARGETS,
        help="Device family to check, by default all; may be repeated.",
    )
    arguments = parser.parse_args()
    if arguments.write and arguments.targets:
        parser.error("--write needs all targets; leave --target out")
    return arguments


def _compare_with_budget(
    built: Mapping[str, KernelStatistics], targets: Sequence[Target]
) -> list[str]:
    """Describe the regressions of some device families.

    Returns nothing if another Triton release wrote the budget.
    """
    budget = Budget.read()
    if budget.triton != triton.__version__:
        # Compiler releases differ in their statistics, but the limits apply to all of them.
        print(f"{PATH.name} was written with Triton {budget.triton}, not {triton.__version__};")
        print("only limits are checked; --write records the statistics of this release")
        return []
    configs_by_name = configurations()
    recorded = {
        name: statistics
        for name, statistics in budget.kernels.items()
        if name not in configs_by_name or configs_by_name[name].target in targets
    }
    return regressions(recorded, built)


if __name__ == "__main__":
    sys.exit(main())
