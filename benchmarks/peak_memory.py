"""Peak memory of a process and its children."""

from __future__ import annotations

import contextlib
import threading

import psutil

SAMPLE_INTERVAL_S = 0.5


class PeakMemory:
    """Context manager that samples the memory of a process and its children.

    Pages that several processes share are counted once (proportional set size).

    Args:
        pid: Process to watch; default: this one.

    Attributes:
        bytes: Largest total so far.
    """

    def __init__(self, pid: int | None = None) -> None:
        self.bytes = 0
        self._process = psutil.Process(pid)
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finished.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._finished.wait(SAMPLE_INTERVAL_S):
            total = 0
            with contextlib.suppress(psutil.Error):  # a process may end at any time
                for process in (self._process, *self._process.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        total += process.memory_full_info().pss
            self.bytes = max(self.bytes, total)
