"""Ctrl-C and SIGTERM as a question, which long work answers where it can stop."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Whether an end was asked for; the second time it is not asked but raised.

    Yields:
        Says whether work should stop where that is well done.

    Raises:
        KeyboardInterrupt: Out of the block, at the second signal.
    """
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        if asked:  # the second time it is meant
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def block_sigint_in_children() -> Iterator[None]:
    """Ctrl-C is for this process: those that are started meanwhile never see it.

    A terminal sends it to all at once. An engine that ends by itself would leave what it was asked
    unanswered, while this process still means to finish it.
    """
    # Its start would unblock the signal; once it runs, it is not started again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def sigint_watcher() -> Iterator[None]:
    """Ctrl-C reaches Python whatever is going on.

    RDKit takes SIGINT for itself during a substructure search: the signal would be lost, and with
    it what that search did not find. Here it is waited for beside the work; processes that are
    started meanwhile do not see it at all.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    over = threading.Event()

    def wait() -> None:
        while not over.is_set():
            if signal.sigtimedwait({signal.SIGINT}, 0.2) is not None:
                _thread.interrupt_main()

    waiter = threading.Thread(target=wait, name="moltc-ctrl-c", daemon=True)
    waiter.start()
    try:
        yield
    finally:
        over.set()
        waiter.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
