"""Starting a private Ray cluster on this machine, and joining a cluster.

``ray start`` and ``ray stop`` know only one cluster per machine, and ``ray stop`` ends all of
them. `LocalCluster` has its own session, ports and folder, listens on the loopback interface only,
and ends with the process that started it.

This module does not import Ray at the top: Ray reads its environment when it is imported, and
`prepare_ray_environment` has to set that environment before.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from moltc_vllm.plugin.server.server_process import ManagedService, free_port

_MB = 1_000_000
_LOOPBACK = "127.0.0.1"
_PR_SET_PDEATHSIG = 1
_TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
_HEAD_ENVIRONMENT = {
    # Skip Ray's graceful drain at shutdown: `Deployment.stop` has finished the requests before.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "VLLM_HOST_IP": _LOOPBACK,
}


class ClusterError(RuntimeError):
    """Ray failed to start or to be joined; the message has the end of its log, if there is one."""


class LocalCluster(ManagedService):
    """Ray head node on this machine, with a folder that only this user can read.

    A process that joins the cluster needs its token in the environment; `prepare_ray_environment`
    sets it for this process and its children.

    Args:
        cpus: Number of logical CPUs that the cluster schedules. Default: all.
        object_store_mb: Size of the shared-memory object store, in MB.
        environment: Variables to add to the environment of Ray's processes. Serve's proxies read
            theirs when they start.
        haproxy: Whether to give HAProxy's files and ports to Serve.
        start_timeout_s: Time limit for the start, in seconds.

    Attributes:
        address: Address (``host:port``) of the cluster; empty before the start.
        folder: Folder of the Ray session and its log while the cluster runs.
        environment: Environment of Ray's processes after the start.
        process: Process of the head node while the cluster runs.
    """

    def __init__(
        self,
        *,
        cpus: int | None = None,
        object_store_mb: int = 150,
        environment: Mapping[str, str] | None = None,
        haproxy: bool = False,
        start_timeout_s: float = 60.0,
    ) -> None:
        self.address = ""
        self.folder = Path()
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self._extra_environment = dict(environment or {})
        self._haproxy = haproxy
        self._start_timeout_s = start_timeout_s
        self._options = [
            *("--object-store-memory", str(object_store_mb * _MB), "--disable-usage-stats"),
            *(("--num-cpus", str(cpus)) if cpus is not None else ()),
        ]

    def start(self) -> Self:
        """Start the cluster and wait until it can be joined.

        Raises:
            ClusterError: If Ray exits or does not start in time, or if Ray was imported before
                `prepare_ray_environment`.
        """
        prepare_ray_environment()
        try:
            # The path is short because it holds sockets, whose paths have at most 107 characters.
            # `mkdtemp` closes the folder to other users; Ray would open its own to all of them.
            self.folder = Path(tempfile.mkdtemp(prefix="ray-"))
            log = self.folder / "head.log"
            self._start_head(log)
            self._wait_until_started(log)
        except BaseException:
            self.stop()
            raise
        return self

    def _start_head(self, log: Path) -> None:
        port = free_port()
        self.address = f"{_LOOPBACK}:{port}"
        self.environment = {**os.environ, **_HEAD_ENVIRONMENT, **self._extra_environment}
        if self._haproxy:
            self.environment |= _haproxy_environment(self.folder / "haproxy")
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                    *("--node-ip-address", _LOOPBACK, "--port", str(port)),
                    *("--ray-client-server-port", str(free_port())),
                    *("--temp-dir", str(self.folder / "r"), "--include-dashboard", "false"),
                    *self._options,
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
                preexec_fn=_terminate_with_parent,
            )

    def _wait_until_started(self, log: Path) -> None:
        assert self.process is not None
        deadline = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline:
            output = log.read_bytes()
            if self.process.poll() is not None:
                raise ClusterError(f"Ray exited during its start:\n{_last_lines(output)}")
            if b"Ray runtime started" in output:
                return
            time.sleep(0.1)
        raise ClusterError(
            f"Ray did not start in {self._start_timeout_s:.0f} s:\n{_last_lines(log.read_bytes())}"
        )

    def stop(self, patience_s: float = 15.0) -> None:
        """Stop the cluster and everything that runs on it.

        Args:
            patience_s: Time between SIGTERM and SIGKILL, in seconds.
        """
        try:
            if self.process is not None and self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(patience_s)
        finally:
            if self.process is not None:
                # Processes of the session can outlive the head node.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                self.process = None
            if self.folder != Path():
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder = Path()


def prepare_ray_environment() -> None:
    """Set the variables with which this process can start private clusters and join them.

    Raises:
        ClusterError: If Ray was imported before the variables were set; it would wait for the
            cluster at another address.
    """
    required = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Keeps Ray on the loopback interface.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # All users of a machine can reach its loopback interface, so a token has to protect it.
        "RAY_AUTH_MODE": "token",
        _TOKEN_VARIABLE: os.environ.get(_TOKEN_VARIABLE) or secrets.token_hex(32),
    }
    missing = [name for name, value in required.items() if os.environ.get(name) != value]
    if missing and "ray" in sys.modules:
        raise ClusterError(
            f"Ray was imported before {missing[0]} was set; call "
            "moltc_vllm.deploy.cluster.prepare_ray_environment() before importing Ray"
        )
    os.environ.update(required)


def join_cluster(address: str | None, namespace: str | None = None) -> None:
    """Connect this process to a Ray cluster as a driver, until ``ray.shutdown``.

    Args:
        address: Address (``host:port``) of the cluster; ``"auto"`` selects this machine's cluster.
        namespace: Ray namespace in which named actors are looked up.

    Raises:
        ClusterError: If there is no cluster at the address.
    """
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            namespace=namespace,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    except (ConnectionError, ValueError) as error:
        raise ClusterError(
            f"there is no Ray cluster at {address}; check the address, or start the cluster"
        ) from error
    # Ray installs a SIGTERM handler that exits at once. Outside the main thread, where setting a
    # handler raises ValueError, Ray does not install one.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, handler)


def _haproxy_environment(folder: Path) -> dict[str, str]:
    """Return variables that give HAProxy its own files and ports.

    Ray's defaults are the same for all clusters of a machine and accessible to all its users.
    """
    prefix = "RAY_SERVE_HAPROXY_"
    return {
        f"{prefix}CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        f"{prefix}SOCKET_PATH": str(folder / "admin.sock"),
        f"{prefix}SERVER_STATE_BASE": str(folder),
        f"{prefix}SERVER_STATE_FILE": str(folder / "server-state"),
        f"{prefix}METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        f"{prefix}METRICS_PORT": str(free_port()),
        f"{prefix}STATS_PORT": str(free_port()),
    }


def _terminate_with_parent() -> None:
    """Let the kernel send SIGTERM to the child when its parent dies (Linux only)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _last_lines(output: bytes, count: int = 20) -> str:
    return "\n".join(output.decode(errors="replace").splitlines()[-count:])
