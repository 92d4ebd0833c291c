"""``moltc serve`` as a child process, for the demo, benchmarks and tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import httpx


class ServerStartError(RuntimeError):
    """The server exited or was not ready in time; the message has the end of its log."""


class ManagedService(ABC):
    """Service that runs within a ``with`` block, or between `start` and `stop`."""

    @abstractmethod
    def start(self) -> Self:
        """Start the service and wait until it is ready."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the service and all processes that it started."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    """Return a free TCP port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess(ManagedService):
    """``moltc serve`` on the loopback interface, stopped with all its child processes.

    Args:
        model: Checkpoint folder.
        arguments: Further flags of ``moltc serve``.
        log: File for the server's output.
        start_timeout_s: Maximum time until the server is ready, in seconds.
        environment: Environment variables to add to those of this process.
    """

    def __init__(
        self,
        model: Path | str,
        arguments: Sequence[str] = (),
        *,
        log: Path,
        start_timeout_s: float = 300.0,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self.start_timeout_s = start_timeout_s
        self.command = [
            *(sys.executable, "-m", "moltc_vllm.cli", "serve", str(model)),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *arguments,
        ]
        self.environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, on_wait: Callable[[float], None] | None = None) -> Self:
        """Start the server and wait until it is ready.

        Args:
            on_wait: Callback that receives the elapsed seconds while the server starts.

        Raises:
            ServerStartError: If the server exits or is not ready in time.
        """
        started_at = time.monotonic()
        with self.log.open("wb") as output:
            # A new session lets `stop` reach the engine and worker processes as well.
            self.process = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        while (elapsed := time.monotonic() - started_at) < self.start_timeout_s:
            if self.process.poll() is not None:
                raise ServerStartError(f"the server exited during its start:\n{self.log_tail()}")
            try:
                if httpx.get(f"{self.url}/health", timeout=2).is_success:
                    return self
            except httpx.TransportError:
                pass
            if on_wait is not None:
                on_wait(elapsed)
            time.sleep(0.25)
        self.stop()
        raise ServerStartError(
            f"the server was not ready after {self.start_timeout_s:.0f} s:\n{self.log_tail()}"
        )

    def log_tail(self, lines: int = 30) -> str:
        """Return the last lines of the server's output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, timeout_s: float = 20.0) -> None:
        """Terminate the server, and kill all its processes that are left after a timeout.

        Args:
            timeout_s: Time that the server has to exit by itself, in seconds.
        """
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
        with contextlib.suppress(ProcessLookupError):  # no process may be left in its session
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
