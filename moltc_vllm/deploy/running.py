"""A deployed configuration: ``serve run`` on a cluster, until it is ended."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import httpx
import yaml

from moltc_vllm.deploy.cluster import LocalCluster
from moltc_vllm.deploy.configuration import Configuration, check_configuration


class DeployError(RuntimeError):
    """The application did not come up."""


class Deployment:
    """An application on a Ray cluster, until it is stopped.

    Args:
        configuration: What to deploy.
        address: Of a running cluster. Its processes need the variables of
            `Configuration.environment`; default: a cluster of its own on this machine.
        haproxy: See `Configuration.environment`.
        port: In place of the configuration's.
        cpus: See `LocalCluster`.
        output: Where the output of ``serve run`` goes; default: to the terminal.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        address: str | None = None,
        haproxy: bool | None = None,
        port: int | None = None,
        cpus: int | None = None,
        output: IO[bytes] | None = None,
    ) -> None:
        environment = configuration.environment(haproxy)
        self.cluster = LocalCluster(environment=environment, cpus=cpus) if address is None else None
        self._address = address
        self._configuration = configuration
        self._port = port
        self._output = output
        self.url = configuration.url
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self, waiting: Callable[[float], None] | None = None, timeout_s: float = 900.0
    ) -> Deployment:
        """Deploy and wait until a replica answers; ``waiting`` gets the seconds so far.

        Raises:
            ClusterError: If Ray does not start.
            DeployError: If the application does not.
        """
        begin = time.monotonic()
        try:
            if self.cluster is not None:
                self._address = self.cluster.start().address
            self._run()
            self._wait(begin + timeout_s, begin, waiting)
        except BaseException:
            self.stop()
            raise
        return self

    def _run(self) -> None:
        path = self._configuration.path
        if self._port is not None:
            path = self._with_port(path, self._port)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.serve.scripts", "run"),
                *("--address", str(self._address), str(path)),
            ],
            stdout=self._output,
            stderr=self._output,
            env=self.cluster.environment if self.cluster is not None else None,
            start_new_session=True,  # Ctrl-C is for us, who pass it on
            # A shell's background job ignores SIGINT, and so would this child.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def _with_port(self, path: Path, port: int) -> Path:
        content: dict[str, Any] = yaml.safe_load(path.read_text())
        content.setdefault("http_options", {})["port"] = port
        if self.cluster is None:
            raise DeployError("the port of a running cluster is what it was started with")
        changed = self.cluster.folder / path.name
        changed.write_text(yaml.safe_dump(content))
        self.url = check_configuration(content, path).url
        return changed

    def _wait(self, end: float, begin: float, waiting: Callable[[float], None] | None) -> None:
        assert self.process is not None
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise DeployError(f"serve run ended with {self.process.returncode}")
            with contextlib.suppress(httpx.TransportError):
                # A route of the application: Serve's own health says nothing of replicas.
                # 401: it wants a key, which we do not have.
                if httpx.get(f"{self.url}/v1/models", timeout=5).status_code in (200, 401):
                    return
            if waiting is not None:
                waiting(time.monotonic() - begin)
            time.sleep(0.5)
        raise DeployError(f"{self.url} did not answer in time")

    def wait(self) -> int:
        """Until ``serve run`` ends; its exit status."""
        assert self.process is not None
        return self.process.wait()

    def stop(self, patience_s: float = 90.0) -> None:
        """Let requests end, then the replicas, then the cluster if it is our own."""
        if self.process is not None:
            if self.process.poll() is None:
                # At SIGINT `serve run` shuts Serve down; SIGTERM would leave the replicas running.
                self.process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(patience_s)
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.process = None
        if self.cluster is not None:
            self.cluster.stop()

    def __enter__(self) -> Deployment:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
