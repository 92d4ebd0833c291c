"""What the benchmarks of replicas share: a deployment of its own, and who its processes are."""

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


class Deployed(NamedTuple):
    """``moltc deploy``, running."""

    url: str
    address: str  # of the Ray cluster
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def deployed(
    folder: Path,
    name: str,
    options: argparse.Namespace,
    change: Callable[[Any], None],
    *more: str,
) -> Iterator[Deployed]:
    """A configuration of ours, changed, on a cluster of its own."""
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
            [*command, "--cpus", "8", *more], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: b"replicas answer" in log.read_bytes() or process.poll() is not None, 600)
        if process.poll() is not None:
            raise SystemExit(log.read_text(errors="replace")[-2000:])
        print(f"{name}: up after {time.monotonic() - begin:.0f} s", flush=True)
        found = re.search(r"Ray is at (\S+)", log.read_text(errors="replace"))
        assert found is not None
        yield Deployed(f"http://127.0.0.1:{port}", found[1], process)
    except BaseException:
        print(log.read_text(errors="replace")[-2000:], file=sys.stderr)
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def replicas(count: int) -> Callable[[Any], None]:
    """So many of them."""

    def change(application: Any) -> None:
        application["deployments"][0]["num_replicas"] = count

    return change


def replicas_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The replicas' processes."""
    found = []
    for one in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ends while it is looked at
            if "ServeReplica:moltc" in " ".join(one.cmdline()[:1]):
                found.append(one)
    return found


def engines(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Engines that are up: those that have a worker."""
    found = []
    for replica in replicas_of(process):
        with contextlib.suppress(psutil.Error, StopIteration):
            engine = engine_of(replica)
            found += [engine] if engine.children() else []
    return found


def engine_of(replica: psutil.Process) -> psutil.Process:
    """The engine's process."""
    return next(one for one in replica.children() if "EngineCore" in " ".join(one.cmdline()[:1]))


@contextlib.contextmanager
def joined(address: str) -> Iterator[Callable[[], int]]:
    """Says how many replicas answer."""
    import ray
    from ray import serve

    from moltc_vllm.deploy.joining import join

    join(address, namespace="serve")

    def running() -> int:
        deployment = serve.status().applications["moltc"].deployments["moltc"]
        return int(deployment.replica_states.get("RUNNING", 0))

    try:
        yield running
    finally:
        ray.shutdown()


def until(holds: Callable[[], bool], most_s: float) -> None:
    """Wait; ends the benchmark if it takes longer than that."""
    end = time.monotonic() + most_s
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"not after {most_s:.0f} s")
        time.sleep(0.1)
