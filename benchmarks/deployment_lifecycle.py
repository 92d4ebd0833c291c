"""Kills, overload, autoscaling and updates of replicas under load."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from replicas import (
    RunningDeployment,
    count_running_replicas,
    engine_of,
    engine_processes,
    replica_processes,
    run_deployment,
    set_replicas,
    wait_until,
)
from traffic import INTERACTIONS, LONG_TIMEOUT, RequestLoop, count_statuses, sample_pairs

from moltc_vllm.engines.http import HttpEngine
from moltc_vllm.tasks.engine import Pair


def kills(options: argparse.Namespace) -> dict[str, Any]:
    """Send SIGKILL to a replica's engine and later to a replica, both under load."""
    result: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        run_deployment(Path(name), _config(options), options, set_replicas(2)) as deployment,
        count_running_replicas(deployment.address) as running,
        RequestLoop(deployment.url) as load,
    ):
        time.sleep(10)
        for target in ("engine", "replica"):
            replica = replica_processes(deployment.process)[0]
            killed = engine_of(replica) if target == "engine" else replica
            begin = time.monotonic()
            killed.send_signal(signal.SIGKILL)
            wait_until(lambda replica=replica: not replica.is_running(), 60)  # type: ignore[misc]
            gone_s = time.monotonic() - begin
            wait_until(
                lambda: running() == 2 and len(engine_processes(deployment.process)) == 2, 300
            )
            full_s = time.monotonic() - begin
            time.sleep(10)
            result[target] = {
                "replica_gone_s": gone_s,
                "full_capacity_s": full_s,
                "calls": count_statuses(load.calls, begin),
                "streams": count_statuses(load.stream_calls, begin),
            }
            print(target, result[target], flush=True)
    return result


def life(options: argparse.Namespace) -> dict[str, Any]:
    """Measure overload, autoscaling and an update under load."""
    config = _config(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with run_deployment(folder, config, options, _limit_queue) as deployment:
            result = {"too_much": _overload(deployment.url)}
        with (
            run_deployment(folder, config, options, _enable_autoscaling) as deployment,
            count_running_replicas(deployment.address) as running,
        ):
            result["scaling"] = _scale(deployment, running)
        with (
            run_deployment(folder, config, options, set_replicas(2)) as deployment,
            count_running_replicas(deployment.address) as running,
        ):
            result["update"] = _update(deployment, running, folder, config)
    return result


def _config(options: argparse.Namespace) -> str:
    return "haproxy" if options.haproxy else "cpu"


def _limit_queue(application: Any) -> None:
    """Configure one replica that runs four requests and queues four."""
    limits = {"num_replicas": 1, "max_ongoing_requests": 4, "max_queued_requests": 4}
    application["deployments"][0].update(limits)


def _enable_autoscaling(application: Any) -> None:
    """Configure one to two replicas."""
    deployment = application["deployments"][0]
    deployment.pop("num_replicas", None)
    deployment["autoscaling_config"] = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 4,
        "upscale_delay_s": 2,
        "downscale_delay_s": 10,
    }


def _overload(url: str) -> dict[str, Any]:
    """Send more requests than the server accepts, without and with retries.

    Requests without retries are answered or refused; a client with retries gets all answers.
    """
    pairs = sample_pairs(20, 20)
    statuses: Counter[str] = Counter()
    refusals_s: list[float] = []
    begin = time.monotonic()
    asyncio.run(_send_at_once(url, pairs[:100], statuses, refusals_s))
    seconds = time.monotonic() - begin
    engine = HttpEngine(url, batch_size=20, max_in_flight=16)
    answers = engine.submit("solvation", [Pair(row, pair) for row, pair in enumerate(pairs)])
    with_retries = Counter(answer.status for _, answer in answers)
    result = {
        "at_once": dict(statuses),
        "all_over_s": seconds,
        "slowest_refusal_s": max(refusals_s, default=None),
        "patient_client": dict(with_retries),
    }
    print("too much", result, flush=True)
    return result


async def _send_at_once(
    url: str, pairs: list[tuple[str, str]], statuses: Counter[str], refusals_s: list[float]
) -> None:
    """Send 40 concurrent requests; count their statuses and record the time of each refusal."""
    async with httpx.AsyncClient(base_url=url, timeout=LONG_TIMEOUT) as client:

        async def send() -> None:
            begin = time.monotonic()
            try:
                response = await client.post(
                    INTERACTIONS, json={"task": "solvation", "pairs": pairs}
                )
            except httpx.HTTPError as error:
                statuses[type(error).__name__] += 1
                return
            retry_after = response.headers.get("retry-after")
            suffix = f", again after {retry_after} s" if retry_after else ""
            statuses[f"{response.status_code}{suffix}"] += 1
            if response.status_code != 200:
                refusals_s.append(time.monotonic() - begin)

        await asyncio.gather(*(send() for _ in range(40)))


def _scale(deployment: RunningDeployment, running: Callable[[], int]) -> dict[str, Any]:
    """Measure scaling from one replica to two under high load, and back under low load."""
    begin = time.monotonic()
    with RequestLoop(deployment.url, callers=12) as high:
        wait_until(lambda: running() == 2, 300)
        upscaled_s = time.monotonic() - begin
        time.sleep(5)
    # The low load is too low for two replicas, but its requests take seconds, so that nearly
    # always both replicas have one in flight.
    begin = time.monotonic()
    with RequestLoop(
        deployment.url, callers=3, streams=1, size=200, constrained=False, max_tokens=60
    ) as low:
        wait_until(lambda: running() == 1, 300)
        downscaled = time.monotonic()
        worked_s = _watch_removed_engine(deployment)
        removed = time.monotonic()
        time.sleep(3)
    in_flight = [call for call in low.all_calls if call.begin < downscaled < call.end]
    result = {
        "two_after_s": upscaled_s,
        "much": count_statuses(high.all_calls),
        "one_after_s": downscaled - begin,
        "gone_after_s": removed - downscaled,
        # The replica gets no new requests, so it spent this time on those in flight.
        "worked_before_it_went_s": worked_s,
        "in_flight_then": dict(Counter(call.status for call in in_flight)),
        "little": count_statuses(low.all_calls),
    }
    print("scaling", result, flush=True)
    return result


def _watch_removed_engine(deployment: RunningDeployment) -> float:
    """Wait until one of two engines has ended; return the CPU seconds it used meanwhile."""
    cpu_times: dict[int, list[float]] = {}
    deadline = time.monotonic() + 200
    while len(engines := engine_processes(deployment.process)) == 2:
        for engine in engines:
            cpu_times.setdefault(engine.pid, []).append(_cpu_s(engine))
        if time.monotonic() > deadline:
            raise SystemExit("the replica to be removed is still running after 200 s")
        time.sleep(0.1)
    (removed,) = cpu_times.keys() - {engine.pid for engine in engines}
    return cpu_times[removed][-1] - cpu_times[removed][0]


def _cpu_s(process: psutil.Process) -> float:
    """Return the CPU seconds that a process and its children have used."""
    seconds = 0.0
    for member in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            seconds += member.cpu_times().user + member.cpu_times().system
    return seconds


def _update(
    deployment: RunningDeployment, running: Callable[[], int], folder: Path, config: str
) -> dict[str, Any]:
    """Deploy the application with another flag under load, as ``serve deploy`` does."""
    port = httpx.URL(deployment.url).port
    content = yaml.safe_load((folder / f"{config}-{port}.yaml").read_text())
    content["http_options"]["port"] = port
    content["applications"][0]["args"]["flags"]["max-num-seqs"] = 32
    changed = folder / "changed.yaml"
    changed.write_text(yaml.safe_dump(content))
    old_pids = {engine.pid for engine in engine_processes(deployment.process)}

    def is_updated() -> bool:
        pids = {engine.pid for engine in engine_processes(deployment.process)}
        return len(pids) == 2 and not pids & old_pids and running() == 2

    with RequestLoop(deployment.url) as load:
        time.sleep(5)
        begin = time.monotonic()
        subprocess.run(
            [
                *(sys.executable, "-m", "ray.serve.scripts", "run", "--non-blocking"),
                *("--address", deployment.address, str(changed)),
            ],
            check=True,
        )
        wait_until(is_updated, 400)
        seconds = time.monotonic() - begin
        time.sleep(5)
    result = {"took_s": seconds, "statuses": count_statuses(load.all_calls)}
    print("update", result, flush=True)
    return result
