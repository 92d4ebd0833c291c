"""A deployed configuration: ``serve run`` on a cluster, until it is ended."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Self

import ray
import yaml
from ray import serve

from moltc_vllm.deploy.cluster import LocalCluster
from moltc_vllm.deploy.configuration import Configuration, ConfigurationError
from moltc_vllm.deploy.joining import join
from moltc_vllm.plugin.server.server_process import Startable

_POLL_S = 0.5


class DeployError(RuntimeError):
    """The application did not come up; the message is one line."""


class Deployment(Startable):
    """An application on a Ray cluster, until it is stopped.

    Args:
        configuration: What to deploy.
        address: Of a running cluster. Its processes need the variables of
            `Configuration.environment`; default: a cluster of its own on this machine.
        haproxy: See `Configuration.environment`.
        cpus: See `LocalCluster`.
        output: Where the output of ``serve run`` goes; default: to the terminal.

    Raises:
        ConfigurationError: If HAProxy is wanted where it cannot be.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        address: str | None = None,
        haproxy: bool | None = None,
        cpus: int | None = None,
        output: IO[bytes] | None = None,
    ) -> None:
        self.configuration = configuration
        self.cluster: LocalCluster | None = None
        if address is None:
            environment = configuration.environment(haproxy)
            self.cluster = LocalCluster(
                cpus=cpus,
                environment=environment,
                haproxy="RAY_SERVE_ENABLE_HA_PROXY" in environment,
            )
        elif haproxy is not None:
            raise ConfigurationError("a running cluster has HAProxy, or not, since it was started")
        self.address = address
        self._output = output
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self, waiting: Callable[[float], None] | None = None, timeout_s: float = 900.0
    ) -> Self:
        """Deploy and wait until all replicas answer; ``waiting`` gets the seconds so far.

        Raises:
            ClusterError: If Ray does not start, or there is no cluster at the address.
            DeployError: If the application does not.
        """
        begin = time.monotonic()
        try:
            if self.cluster is not None:
                self._check_port()
                self.address = self.cluster.start().address
            join(self.address, namespace="serve")
            self._run()
            while not self._is_up():
                if time.monotonic() - begin > timeout_s:
                    raise DeployError(f"not all replicas answered after {timeout_s:.0f} s")
                if waiting is not None:
                    waiting(time.monotonic() - begin)
                time.sleep(_POLL_S)
        except BaseException:
            self.stop()
            raise
        return self

    def _check_port(self) -> None:
        """Another server there would be taken for this one."""
        host, port = self.configuration.host, self.configuration.port
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, port)) == 0:
                raise DeployError(f"something else answers at {host}:{port}; choose another --port")

    def _run(self) -> None:
        # Its own copy: the port may be another one, and what is run is what has been checked.
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as file:
            yaml.safe_dump(self.configuration.content, file)
        self._file = Path(file.name)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.serve.scripts", "run"),
                *("--address", str(self.address), str(self._file)),
            ],
            stdout=self._output,
            stderr=self._output,
            env=self.cluster.environment if self.cluster is not None else None,
            start_new_session=True,  # Ctrl-C is for us, who end it in good order
            # A shell's background job ignores SIGINT, and so would this child.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def _is_up(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise DeployError("serve run ended; its output says why")
        found = self._applications()
        for name, application in found.items():
            if application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                reason = " ".join(str(application.message).split())
                raise DeployError(f"{name}: {reason[-600:] or application.status}")
        return len(found) == len(self.configuration.names) and all(
            application.status == "RUNNING" for application in found.values()
        )

    def _applications(self) -> dict[str, Any]:
        """What Serve says of ours."""
        applications = serve.status().applications
        names = self.configuration.names
        return {name: applications[name] for name in names if name in applications}

    def wait(self) -> None:
        """Until ``serve run`` ends, which it does by itself only when something is wrong."""
        assert self.process is not None
        self.process.wait()

    def stop(self, patience_s: float = 150.0) -> None:
        """Let requests end, then the replicas, then the cluster if it is our own."""
        try:
            if ray.is_initialized():
                with contextlib.suppress(Exception):  # Serve, or the cluster, has gone
                    self._drain(time.monotonic() + patience_s)
                ray.shutdown()
        finally:
            if self.process is not None:
                # Not politely: it would end all of Serve, also what is not ours.
                self.process.kill()
                self.process.wait()
                self.process = None
                self._file.unlink(missing_ok=True)
            if self.cluster is not None:
                self.cluster.stop()

    def _drain(self, end: float) -> None:
        """Take the applications away while the proxies are still there for what is in flight."""
        for name in self._applications():
            serve.delete(name, _blocking=False)
        while self._applications() and time.monotonic() < end:
            time.sleep(_POLL_S)
