"""Latency and throughput of one replica behind Ray Serve compared with the bare server."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from replicas import run_deployment, set_replicas
from traffic import INTERACTIONS, LONG_TIMEOUT, sample_pairs

from moltc_vllm.plugin.server.server_process import ServerProcess

Figures = dict[str, float]


class Workload(NamedTuple):
    """Number of concurrent clients, pairs per request, and requests per round."""

    clients: int
    pairs: int
    requests: int


WORKLOADS = {
    "1 client": Workload(1, 1, 150),
    "16 clients": Workload(16, 1, 480),
    "50 pairs": Workload(1, 50, 12),
}


def overhead(options: argparse.Namespace) -> dict[str, Any]:
    """Send the same requests to the bare server and to a replica behind each of Serve's proxies."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        urls = _start_servers(Path(name), options, stack)
        rounds: dict[str, dict[str, list[Figures]]] = {
            workload: {server: [] for server in urls} for workload in WORKLOADS
        }
        for round_index in range(options.rounds + 1):
            for workload, sizes in WORKLOADS.items():
                bodies = _request_bodies(sizes, seed=round_index)
                for server in list(urls)[:: -1 if round_index % 2 else 1]:
                    figures = _measure(urls[server], bodies, sizes.clients)
                    if not round_index:  # the first round warms up
                        continue
                    rounds[workload][server].append(figures)
                    _print_figures(workload, server, figures, digits=1)
    return {workload: _summarize(workload, by_server) for workload, by_server in rounds.items()}


def _start_servers(
    folder: Path, options: argparse.Namespace, stack: contextlib.ExitStack
) -> dict[str, str]:
    """Start all servers; return their URLs by name."""
    flags = ["--served-model-name", "moltc", "--max-num-seqs", "64"]
    flags += ["--max-num-batched-tokens", "4096"]
    # Ray gives a replica with one CPU one thread.
    one_thread = {"OMP_NUM_THREADS": "1"}
    bare = ServerProcess(options.model, flags, log=folder / "bare.log", environment=one_thread)
    urls = {"bare": stack.enter_context(bare).url}
    for server, config in (("python proxy", "cpu"), ("haproxy", "haproxy")):
        deployment = run_deployment(folder, config, options, set_replicas(1))
        urls[server] = stack.enter_context(deployment).url
    return urls


def _request_bodies(sizes: Workload, seed: int) -> list[dict[str, Any]]:
    pairs = iter(sample_pairs(sizes.requests, sizes.pairs, seed=seed))
    return [
        {"task": "solvation", "score": True, "pairs": list(itertools.islice(pairs, sizes.pairs))}
        for _ in range(sizes.requests)
    ]


def _measure(url: str, bodies: list[dict[str, Any]], clients: int) -> Figures:
    begin = time.perf_counter()
    latencies = sorted(asyncio.run(_send_requests(url, bodies, clients)))
    seconds = time.perf_counter() - begin
    return {
        "p50_ms": 1e3 * statistics.median(latencies),
        "p99_ms": 1e3 * latencies[min(len(latencies) - 1, int(0.99 * len(latencies)))],
        "requests_per_s": len(latencies) / seconds,
    }


async def _send_requests(url: str, bodies: list[dict[str, Any]], clients: int) -> list[float]:
    """Send the requests with concurrent clients; return the latency of each one in seconds."""
    latencies: list[float] = []
    remaining = iter(bodies)
    async with httpx.AsyncClient(base_url=url, timeout=LONG_TIMEOUT) as client:

        async def run_client() -> None:
            for body in remaining:
                begin = time.perf_counter()
                (await client.post(INTERACTIONS, json=body)).raise_for_status()
                latencies.append(time.perf_counter() - begin)

        await asyncio.gather(*(run_client() for _ in range(clients)))
    return latencies


def _summarize(workload: str, rounds: dict[str, list[Figures]]) -> dict[str, Figures]:
    """Return each server's medians over rounds, and the medians of its ratios to the bare server.

    Args:
        workload: Name of the workload.
        rounds: Figures of each round, by server.
    """
    result = {}
    for server, figures in rounds.items():
        keys = figures[0]
        medians = {key: statistics.median(figure[key] for figure in figures) for key in keys}
        ratios = {
            f"{key}_ratio": statistics.median(
                figure[key] / base[key]
                for figure, base in zip(figures, rounds["bare"], strict=True)
            )
            for key in keys
        }
        result[server] = medians | ratios
        _print_figures(workload, server, result[server], digits=2)
    return result


def _print_figures(workload: str, server: str, figures: Figures, digits: int) -> None:
    print(workload, server, {key: round(value, digits) for key, value in figures.items()})
