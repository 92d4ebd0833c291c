"""``python -m moltc_kernels.aot --check`` or ``--write``."""

from __future__ import annotations

import argparse
import sys
import time

import triton
from triton import knobs

from moltc_kernels.aot.budget import PATH, Budget, broken_limits, regressions
from moltc_kernels.aot.build import build_all
from moltc_kernels.aot.configurations import configurations
from moltc_kernels.launch import TARGETS


def main() -> int:
    """Build everything, judge it, say so; 0 if all is well."""
    parser = argparse.ArgumentParser(prog="python -m moltc_kernels.aot", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="compare with the budget")
    action.add_argument("--write", action="store_true", help="write the budget anew")
    parser.add_argument(
        "--target",
        dest="targets",
        action="append",
        choices=TARGETS,
        help="check only this one; may be repeated",
    )
    arguments = parser.parse_args()
    if arguments.write and arguments.targets:
        parser.error("the budget is written for all targets")
    targets = arguments.targets or list(TARGETS)
    if knobs.runtime.interpret:
        print("TRITON_INTERPRET is set: run this without it", file=sys.stderr)
        return 2

    start = time.perf_counter()
    built = build_all(targets)
    known = configurations()
    complaints = [line for name in built for line in broken_limits(known[name], built[name])]
    if arguments.check:
        budget = Budget.read()
        if budget.triton == triton.__version__:
            recorded = {
                name: one
                for name, one in budget.kernels.items()
                if name not in known or known[name].target in targets
            }
            complaints += regressions(recorded, built)
        else:
            # Another compiler gives other numbers; the limits hold for any.
            print(f"{PATH.name} is of Triton {budget.triton}, this is {triton.__version__}: ")
            print("limits checked, numbers not compared; --write records the new ones")
    elif not complaints:
        Budget(triton.__version__, built).write()
    for line in complaints:
        print(line, file=sys.stderr)
    verdict = f"{len(complaints)} complaints" if complaints else "all within limits and budget"
    print(f"{len(built)} kernels built in {time.perf_counter() - start:.0f} s: {verdict}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
