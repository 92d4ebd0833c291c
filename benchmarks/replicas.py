"""Deployments for the benchmarks of replicas, and access to their processes."""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml

from moltc_vllm.plugin.server.server_process import free_port

CONFIGS = Path(__file__).parents[1] / "serve_configs"


class RunningDeployment(NamedTuple):
    """Running ``moltc deploy``: URL of the server, address of the Ray cluster, and the process."""

    url: str
    address: str
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def run_deployment(
    folder: Path,
    name: str,
    options: argparse.Namespace,
    change: Callable[[Any], None],
    *arguments: str,
) -> Iterator[RunningDeployment]:
    """Run ``moltc deploy`` on a private cluster for the duration of the context.

    Args:
        folder: Folder for the changed configuration and the log.
        name: Name of a file in serve_configs/, without its extension.
        options: Options of the benchmark; ``options.model`` is the checkpoint folder.
        change: Function that changes the configuration's application in place.
        arguments: Further arguments of ``moltc deploy``.
    """
    content = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    application = content["applications"][0]
    application["args"]["model"] = str(options.model)
    application["args"]["flags"]["served-model-name"] = "moltc"
    change(application)
    port = free_port()
    path, log = folder / f"{name}-{port}.yaml", folder / f"{name}-{port}.log"
    path.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "moltc_vllm.cli", "deploy", str(path), "--port", str(port)]
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--cpus", "8", *arguments], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_until(
            lambda: b"replicas answer" in log.read_bytes() or process.poll() is not None, 600
        )
        if process.poll() is not None:
            raise SystemExit(log.read_text(errors="replace")[-2000:])
        print(f"{name}: up after {time.monotonic() - begin:.0f} s", flush=True)
        address = re.search(r"Ray is at (\S+)", log.read_text(errors="replace"))
        assert address is not None
        yield RunningDeployment(f"http://127.0.0.1:{port}", address[1], process)
    except BaseException:
        print(log.read_text(errors="replace")[-2000:], file=sys.stderr)
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def set_replicas(count: int) -> Callable[[Any], None]:
    """Return a function that sets the number of an application's replicas."""

    def change(application: Any) -> None:
        application["deployments"][0]["num_replicas"] = count

    return change


def replica_processes(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Find the replicas among a deployment's child processes."""
    replicas = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # the child may end at any time
            if "ServeReplica:moltc" in " ".join(child.cmdline()[:1]):
                replicas.append(child)
    return replicas


def engine_processes(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Find a deployment's engines that are up, which is when they have a worker process."""
    engines = []
    for replica in replica_processes(process):
        with contextlib.suppress(psutil.Error, StopIteration):
            engine = engine_of(replica)
            engines += [engine] if engine.children() else []
    return engines


def engine_of(replica: psutil.Process) -> psutil.Process:
    """Return the engine process of a replica."""
    return next(
        child for child in replica.children() if "EngineCore" in " ".join(child.cmdline()[:1])
    )


@contextlib.contextmanager
def count_running_replicas(address: str) -> Iterator[Callable[[], int]]:
    """Join a cluster, and yield a function that returns its number of running replicas."""
    import ray
    from ray import serve

    from moltc_vllm.deploy.cluster import join_cluster

    join_cluster(address, namespace="serve")

    def count() -> int:
        deployment = serve.status().applications["moltc"].deployments["moltc"]
        return int(deployment.replica_states.get("RUNNING", 0))

    try:
        yield count
    finally:
        ray.shutdown()


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Wait for a condition, and end the benchmark if it does not hold in time.

    Args:
        condition: Function that is polled until it returns true.
        timeout_s: Time limit in seconds.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"the benchmark waited {timeout_s:.0f} s in vain")
        time.sleep(0.1)
