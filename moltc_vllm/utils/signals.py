"""Handling of SIGINT (Ctrl-C) and SIGTERM in long-running commands."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

_POLL_S = 0.2


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Let the block finish its current step at the first SIGINT or SIGTERM.

    The first signal requests a stop; the second raises `KeyboardInterrupt`. The previous signal
    handlers are restored when the block ends. Only the main thread can use it.

    Yields:
        Function that returns whether a stop was requested.

    Raises:
        KeyboardInterrupt: From within the block, at the second signal.
    """
    stop_requested = False

    def handle(signal_number: int, _: FrameType | None) -> None:
        nonlocal stop_requested
        if stop_requested:
            raise KeyboardInterrupt
        stop_requested = True

    previous = {
        signal_number: signal.signal(signal_number, handle)
        for signal_number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: stop_requested
    finally:
        for signal_number, handler in previous.items():
            signal.signal(signal_number, handler)


@contextmanager
def block_sigint_in_children() -> Iterator[None]:
    """Block SIGINT in this thread and in the processes that are started within the block.

    A terminal sends Ctrl-C to all processes of a command at once. An engine process that
    exits because of it would drop the requests that this process still waits for.
    """
    # Starting the resource tracker would unblock SIGINT, and it is started only once.
    resource_tracker.ensure_running()
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@contextmanager
def sigint_watcher() -> Iterator[None]:
    """Deliver SIGINT to the main thread even while RDKit handles signals.

    RDKit installs its own SIGINT handler during a substructure search: the signal would be lost,
    and the search would return incomplete results. Therefore SIGINT is blocked, a thread waits for
    it and interrupts the main thread. Processes that are started within the block do not receive
    SIGINT.

    Threads that exist before the block still receive the signal, so enter it before libraries that
    start threads are imported.

    Raises:
        KeyboardInterrupt: From within the block, after SIGINT.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    is_done = threading.Event()

    def wait_for_sigint() -> None:
        while not is_done.is_set():
            if signal.sigtimedwait({signal.SIGINT}, _POLL_S) is not None:
                _thread.interrupt_main()

    watcher = threading.Thread(target=wait_for_sigint, name="moltc-ctrl-c", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_done.set()
        watcher.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
