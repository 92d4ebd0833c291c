"""A server of our own as a child process: for the demo, benchmarks and tests."""

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
    """The server ended, or was not ready in time; the end of its log is in the message."""


class Startable(ABC):
    """What runs between its start and its stop; a context manager of both."""

    @abstractmethod
    def start(self) -> Self:
        """Start it, and wait until it answers."""

    @abstractmethod
    def stop(self) -> None:
        """End it, and all that it has started."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    """A free TCP port on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess(Startable):
    """``moltc serve`` on the loopback interface, ended with all its children.

    Args:
        model: Checkpoint folder.
        arguments: Further flags of ``moltc serve``.
        log: File for the server's output.
        start_timeout_s: How long it may take to answer.
        environment: Variables to add.
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

    def start(self, waiting: Callable[[float], None] | None = None) -> Self:
        """Start and wait until it answers; ``waiting`` is called with the seconds so far.

        Raises:
            ServerStartError: If it does not.
        """
        begin = time.monotonic()
        with self.log.open("wb") as output:
            # A session of its own: the engine and worker processes end with it.
            self.process = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        while (elapsed := time.monotonic() - begin) < self.start_timeout_s:
            if self.process.poll() is not None:
                raise ServerStartError(f"the server ended at once:\n{self.log_end()}")
            try:
                if httpx.get(f"{self.url}/health", timeout=2).is_success:
                    return self
            except httpx.TransportError:
                pass
            if waiting is not None:
                waiting(elapsed)
            time.sleep(0.25)
        self.stop()
        raise ServerStartError(
            f"the server was not ready after {self.start_timeout_s:.0f} s:\n{self.log_end()}"
        )

    def log_end(self, lines: int = 30) -> str:
        """The last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, patience_s: float = 20.0) -> None:
        """End the server, politely first."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience_s)
        with contextlib.suppress(ProcessLookupError):  # whoever is left of its session
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
