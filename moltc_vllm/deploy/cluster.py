"""A Ray cluster of our own on this machine, which ends with whoever started it.

``ray start`` and ``ray stop`` know one cluster per machine, and the latter ends all of them. This
one has its own session, ports and folder, and is on the loopback interface.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from moltc_vllm.plugin.server_process import free_port

_MB = 1_000_000
_LOOPBACK = "127.0.0.1"


class ClusterError(RuntimeError):
    """Ray did not start, or not in time; the end of its log is in the message."""


class LocalCluster:
    """A Ray head on this machine.

    Args:
        cpus: Logical CPUs to share out; default: as many as there are.
        object_store_mb: Shared memory for objects; answers are small.
        environment: Variables of Ray's own processes: Serve's proxies read some at start.
        start_timeout_s: How long it may take.
    """

    def __init__(
        self,
        *,
        cpus: int | None = None,
        object_store_mb: int = 150,
        environment: Mapping[str, str] | None = None,
        start_timeout_s: float = 60.0,
    ) -> None:
        # Short: sockets lie in it, and their names have at most 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))
        self.port = free_port()
        self.address = f"{_LOOPBACK}:{self.port}"
        self.log = self.folder / "head.log"
        self.start_timeout_s = start_timeout_s
        self.environment = {**os.environ, **DRIVERS, **_DEFAULTS, **(environment or {})}
        self.command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *("--node-ip-address", _LOOPBACK, "--port", str(self.port)),
            *("--ray-client-server-port", str(free_port())),
            *("--temp-dir", str(self.folder), "--include-dashboard", "false"),
            *("--object-store-memory", str(object_store_mb * _MB), "--disable-usage-stats"),
            *(("--num-cpus", str(cpus)) if cpus is not None else ()),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> LocalCluster:
        """Start it and wait until it can be joined.

        Raises:
            ClusterError: If it cannot.
        """
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        begin = time.monotonic()
        while time.monotonic() - begin < self.start_timeout_s:
            if self.process.poll() is not None:
                raise ClusterError(f"Ray ended at once:\n{self.log_end()}")
            # Said when the head can be joined.
            if b"Ray runtime started" in self.log.read_bytes():
                return self
            time.sleep(0.1)
        self.stop()
        raise ClusterError(f"Ray did not start in {self.start_timeout_s:.0f} s:\n{self.log_end()}")

    def log_end(self, lines: int = 20) -> str:
        """The last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, patience_s: float = 15.0) -> None:
        """End it, with everything that runs on it."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(patience_s)
            with contextlib.suppress(ProcessLookupError):  # whoever is left of its session
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> LocalCluster:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def join(self) -> None:
        """Let this process be a driver of it; before anything imports Ray.

        Raises:
            ClusterError: If Ray is imported: it would look for the cluster elsewhere, for ever.
        """
        missing = [name for name, value in DRIVERS.items() if os.environ.get(name) != value]
        if missing and "ray" in sys.modules:
            raise ClusterError("Ray was imported before its environment was set")
        os.environ.update(DRIVERS)


DRIVERS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Keeps Ray on the loopback interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "disabled",  # nobody else can reach it
}
"""Variables of everybody who joins such a cluster."""

_DEFAULTS = {
    # What is left to drain at the end is ended: nobody waits for it.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "VLLM_HOST_IP": _LOOPBACK,
}
