"""Deploying a configuration with ``serve run`` and stopping it again."""

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

from moltc_vllm.deploy.cluster import LocalCluster, join_cluster
from moltc_vllm.deploy.configuration import ConfigurationError, ServeConfiguration
from moltc_vllm.plugin.server.server_process import ManagedService
from moltc_vllm.utils.errors import one_line

_POLL_S = 0.5
_MAX_REASON_CHARACTERS = 600


class DeploymentError(RuntimeError):
    """Application that did not start; the message is one line."""


class Deployment(ManagedService):
    """Applications of a configuration on a Ray cluster, from `start` to `stop`.

    Args:
        configuration: Configuration to deploy.
        address: Address of a running cluster, whose processes need the variables of
            `ServeConfiguration.cluster_environment`. Default: a private cluster on this machine,
            started and stopped with the deployment.
        haproxy: Whether HAProxy receives the requests; see
            `ServeConfiguration.cluster_environment`.
        cpus: Number of CPUs of the private cluster; see `LocalCluster`.
        output: File for the output of ``serve run``. Default: this process's output.

    Attributes:
        configuration: Configuration to deploy.
        cluster: Private cluster, or ``None`` if an address was given.
        address: Address of the cluster; ``None`` before a private cluster has started.
        process: Process of ``serve run`` while the deployment is up.

    Raises:
        ConfigurationError: If `haproxy` contradicts the configuration, or is given together with
            the address of a running cluster.
    """

    def __init__(
        self,
        configuration: ServeConfiguration,
        *,
        address: str | None = None,
        haproxy: bool | None = None,
        cpus: int | None = None,
        output: IO[bytes] | None = None,
    ) -> None:
        self.configuration = configuration
        self.cluster: LocalCluster | None = None
        if address is None:
            environment = configuration.cluster_environment(haproxy)
            self.cluster = LocalCluster(
                cpus=cpus,
                environment=environment,
                haproxy="RAY_SERVE_ENABLE_HA_PROXY" in environment,
            )
        elif haproxy is not None:
            raise ConfigurationError(
                "--haproxy and --no-haproxy have no effect on a running cluster: whether it uses "
                "HAProxy was decided when it was started; leave the option out"
            )
        self.address = address
        self.process: subprocess.Popen[bytes] | None = None
        self._output = output
        self._config_file = Path()

    def start(
        self, on_wait: Callable[[float], None] | None = None, timeout_s: float = 900.0
    ) -> Self:
        """Deploy the applications and wait until all replicas answer.

        Args:
            on_wait: Callback that receives the elapsed seconds while replicas start.
            timeout_s: Time limit for the start, in seconds.

        Raises:
            ClusterError: If Ray does not start, or there is no cluster at the address.
            DeploymentError: If an application fails, or does not answer in time.
        """
        start_time = time.monotonic()
        try:
            if self.cluster is not None:
                self._check_port_is_free()
                self.address = self.cluster.start().address
            join_cluster(self.address, namespace="serve")
            self._start_serve_run()
            while not self._is_running():
                elapsed = time.monotonic() - start_time
                if elapsed > timeout_s:
                    raise DeploymentError(f"not all replicas answered within {timeout_s:.0f} s")
                if on_wait is not None:
                    on_wait(elapsed)
                time.sleep(_POLL_S)
        except BaseException:
            self.stop()
            raise
        return self

    def _check_port_is_free(self) -> None:
        # Clients and the checks of this class would mistake another server for this one.
        host, port = self.configuration.host, self.configuration.port
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, port)) == 0:
                raise DeploymentError(
                    f"another server already listens at {host}:{port}; choose another --port"
                )

    def _start_serve_run(self) -> None:
        # `serve run` gets the checked content, which may have another port than the file.
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as file:
            yaml.safe_dump(self.configuration.content, file)
        self._config_file = Path(file.name)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.serve.scripts", "run"),
                *("--address", str(self.address), str(self._config_file)),
            ],
            stdout=self._output,
            stderr=self._output,
            env=self.cluster.environment if self.cluster is not None else None,
            start_new_session=True,  # Ctrl-C must not reach it, so that `stop` can drain requests
            # A shell's background jobs ignore SIGINT, and children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def _is_running(self) -> bool:
        """Return whether all applications are up.

        Raises:
            DeploymentError: If ``serve run`` has exited or an application has failed.
        """
        assert self.process is not None
        if self.process.poll() is not None:
            raise DeploymentError("`serve run` exited; see its output for the reason")
        applications = self._applications()
        for name, application in applications.items():
            if application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                reason = one_line(application.message or application.status)
                raise DeploymentError(f"{name}: {reason[-_MAX_REASON_CHARACTERS:]}")
        return len(applications) == len(self.configuration.application_names) and all(
            application.status == "RUNNING" for application in applications.values()
        )

    def _applications(self) -> dict[str, Any]:
        """Return Serve's status of those applications that it has, by name."""
        applications = serve.status().applications
        names = self.configuration.application_names
        return {name: applications[name] for name in names if name in applications}

    def wait(self) -> None:
        """Wait until ``serve run`` exits, which it does by itself only after an error."""
        assert self.process is not None
        self.process.wait()

    def stop(self, patience_s: float = 150.0) -> None:
        """Finish requests in flight, then stop the replicas and the private cluster.

        Args:
            patience_s: Time limit for requests in flight, in seconds.
        """
        try:
            if ray.is_initialized():
                # Draining fails if Serve or the cluster has gone already.
                with contextlib.suppress(Exception):
                    self._drain(time.monotonic() + patience_s)
                ray.shutdown()
        finally:
            if self.process is not None:
                # On SIGTERM it would shut down all of Serve, including others' applications.
                self.process.kill()
                self.process.wait()
                self.process = None
                self._config_file.unlink(missing_ok=True)
            if self.cluster is not None:
                self.cluster.stop()

    def _drain(self, deadline: float) -> None:
        """Delete the applications while the proxies still deliver responses in flight."""
        for name in self._applications():
            serve.delete(name, _blocking=False)
        while self._applications() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
