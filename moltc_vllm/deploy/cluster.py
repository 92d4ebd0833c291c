"""A Ray cluster of our own on this machine, which ends with whoever started it.

``ray start`` and ``ray stop`` know one cluster per machine, and the latter ends all of them. This
one has its own session, ports and folder, and is on the loopback interface.
"""

from __future__ import annotations

import contextlib
import ctypes
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

from moltc_vllm.plugin.server.server_process import Startable, free_port

_MB = 1_000_000
_LOOPBACK = "127.0.0.1"


class ClusterError(RuntimeError):
    """Ray did not start, or not in time; the end of its log is in the message."""


class LocalCluster(Startable):
    """A Ray head on this machine, and a folder that nobody else may look into.

    Whoever joins it has to know its token, which is `DRIVERS`' in the environment: see
    `prepare_environment`.

    Args:
        cpus: Logical CPUs to share out; default: as many as there are.
        object_store_mb: Shared memory for objects; answers are small.
        environment: Variables of Ray's own processes: Serve's proxies read some at start.
        haproxy: Whether Serve's requests are taken by HAProxy.
        start_timeout_s: How long it may take.

    Attributes:
        address: Of the cluster, once it has been started.
        folder: Its own, as long as it runs.
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
        self._wanted = dict(environment or {})
        self._haproxy = haproxy
        self._start_timeout_s = start_timeout_s
        self._options = [
            *("--object-store-memory", str(object_store_mb * _MB), "--disable-usage-stats"),
            *(("--num-cpus", str(cpus)) if cpus is not None else ()),
        ]

    def start(self) -> Self:
        """Start it and wait until it can be joined.

        Raises:
            ClusterError: If it cannot, or Ray was imported before `prepare_environment`.
        """
        prepare_environment()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        # Short: sockets lie in it, and their names have at most 107 characters. Ray opens its own
        # folders to all users; this one stays closed.
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))
        port = free_port()
        self.address = f"{_LOOPBACK}:{port}"
        self.environment = {**os.environ, **_DEFAULTS, **self._wanted}
        if self._haproxy:
            self.environment |= _haproxy(self.folder / "haproxy")
        log = self.folder / "head.log"
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
                preexec_fn=_end_with_parent,
            )
        begin = time.monotonic()
        while time.monotonic() - begin < self._start_timeout_s:
            said = log.read_bytes()
            if self.process.poll() is not None:
                raise ClusterError(f"Ray ended at once:\n{_end_of(said)}")
            if b"Ray runtime started" in said:  # now it can be joined
                return
            time.sleep(0.1)
        raise ClusterError(
            f"Ray did not start in {self._start_timeout_s:.0f} s:\n{_end_of(log.read_bytes())}"
        )

    def stop(self, patience_s: float = 15.0) -> None:
        """End it, with everything that runs on it."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(patience_s)
        finally:
            if self.process is not None:
                with contextlib.suppress(ProcessLookupError):  # whoever is left of its session
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                self.process = None
            if self.folder != Path():
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder = Path()


_TOKEN = "RAY_AUTH_TOKEN"


def prepare_environment() -> None:
    """Let this process start clusters of its own and join them; before anything imports Ray.

    Raises:
        ClusterError: If Ray is imported already: it would look for the cluster elsewhere, for ever.
    """
    wanted = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Keeps Ray on the loopback interface.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Every user of this machine reaches its loopback interface.
        "RAY_AUTH_MODE": "token",
        _TOKEN: os.environ.get(_TOKEN) or secrets.token_hex(32),
    }
    missing = [name for name, value in wanted.items() if os.environ.get(name) != value]
    if missing and "ray" in sys.modules:
        raise ClusterError(f"Ray was imported before its environment was set: {missing[0]}")
    os.environ.update(wanted)


_DEFAULTS = {
    # What is left to drain at the end is ended: nobody waits for it.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "VLLM_HOST_IP": _LOOPBACK,
}


def _haproxy(folder: Path) -> dict[str, str]:
    """HAProxy's files and ports: Ray's own are those of a machine, and open to its users."""
    name = "RAY_SERVE_HAPROXY_"
    return {
        f"{name}CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        f"{name}SOCKET_PATH": str(folder / "admin.sock"),
        f"{name}SERVER_STATE_BASE": str(folder),
        f"{name}SERVER_STATE_FILE": str(folder / "server-state"),
        f"{name}METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        f"{name}METRICS_PORT": str(free_port()),
        f"{name}STATS_PORT": str(free_port()),
    }


_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """In the child: however this process ends, Ray is told to. Linux only."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_of(said: bytes, lines: int = 20) -> str:
    return "\n".join(said.decode(errors="replace").splitlines()[-lines:])
