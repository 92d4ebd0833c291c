"""Effect of routing by molecule and of the shared cache on two replicas."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from replicas import run_deployment
from traffic import sample_pairs

from moltc_vllm.engines.http import HttpEngine
from moltc_vllm.tasks.engine import Pair

COUNTERS = (
    "moltc_molecules_encoded_total",
    "vllm:prefix_cache_hits_total",
    "vllm:prefix_cache_queries_total",
)

ARRANGEMENTS = {
    "default": (False, False),
    "affinity": (True, False),
    "default, shared cache": (False, True),
    "affinity, shared cache": (True, True),
}
"""Whether requests are routed by molecule, and whether replicas share encoded molecules."""


def affinity(options: argparse.Namespace) -> dict[str, Any]:
    """Answer a product of 50 drugs and 200 library molecules with each arrangement."""
    pairs = [Pair(row, pair) for row, pair in enumerate(sample_pairs(50, 200))]
    unique = len({molecule for pair in pairs for molecule in pair.molecules})
    result: dict[str, Any] = {"pairs": len(pairs), "unique_molecules": unique}
    for name, (by_molecule, shared) in ARRANGEMENTS.items():
        result[name] = _measure(options, pairs, unique, by_molecule=by_molecule, shared=shared)
        print(name, result[name], flush=True)
    return result


def _measure(
    options: argparse.Namespace,
    pairs: list[Pair],
    unique: int,
    *,
    by_molecule: bool,
    shared: bool,
) -> dict[str, Any]:
    def change(application: Any) -> None:
        application["args"]["shared_cache_mb"] = 256.0 if shared else 0.0
        if not by_molecule:
            del application["deployments"][0]["request_router_config"]

    with (
        tempfile.TemporaryDirectory() as name,
        run_deployment(Path(name), "cpu", options, change, "--no-haproxy") as deployment,
    ):
        url = deployment.url
        engine = HttpEngine(url, batch_size=50, max_in_flight=8, score=True)
        warm_up = [Pair(0, ("C" * length, "O" * 2)) for length in range(1, 40)]
        for _ in engine.submit("solvation", warm_up):
            pass
        before = _read_counters(url)
        begin = time.perf_counter()
        answered = sum(1 for _ in engine.submit("solvation", pairs))
        seconds = time.perf_counter() - begin
        time.sleep(2)  # vLLM updates its counters periodically
        after = _read_counters(url)
    growth = {name: after[name] - before[name] for name in COUNTERS}
    return {
        "answered": answered,
        "pairs_per_s": answered / seconds,
        "molecules_encoded": growth["moltc_molecules_encoded_total"],
        "encoded_per_unique": growth["moltc_molecules_encoded_total"] / unique,
        "prefix_hit_rate": growth["vllm:prefix_cache_hits_total"]
        / max(1.0, growth["vllm:prefix_cache_queries_total"]),
    }


def _read_counters(url: str) -> dict[str, float]:
    """Read the counters from ``/metrics``, which sums over the replicas of this machine."""
    lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
    return {
        name: sum(
            float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name
        )
        for name in COUNTERS
    }
