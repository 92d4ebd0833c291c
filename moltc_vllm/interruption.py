"""Ctrl-C and SIGTERM as a question, which long work answers where it can stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
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
