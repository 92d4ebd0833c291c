"""RDKit's log: kept off stderr, and read for the reason of a failure."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rdkit import rdBase

# The log is one per process. With two threads in `BlockLogs`, the first to leave would switch it
# on under the second, and a capture would hear both. RDKit's parsers hold the GIL anyway, so that
# taking turns costs nothing.
_LOG_LOCK = threading.RLock()

_TIMESTAMP = re.compile(r"^\[\d\d:\d\d:\d\d\] ")
_PREFIX = re.compile(r"^SMILES Parse Error: ")
_ECHO = re.compile(r" (?:while parsing: |for input: ').*$")
_HEADLINE = re.compile(r"^(?:\**|[\w-]+ (?:Violation|Error))$")  # of a broken invariant
_POSITION = re.compile(r"check for mistakes around position (\d+)")


class QuietLog:
    """Keep RDKit silent; for what will most likely succeed, as it costs a third of a capture.

    Blocks nest, so around many short calls one block is cheaper still.
    """

    __slots__ = ("_block",)

    def __enter__(self) -> None:
        _LOG_LOCK.acquire()
        self._block = rdBase.BlockLogs()

    def __exit__(self, *error: object) -> None:
        self._block.__exit__(*error)
        _LOG_LOCK.release()


@contextmanager
def captured_log() -> Iterator[Any]:
    """Keep RDKit silent and collect its errors, in ``messages`` of what is yielded.

    Which of RDKit's logs are on is afterwards as it was before.
    """
    # Blocking is for warnings ("not removing hydrogen atom without neighbors"); errors are
    # captured even so.
    with _LOG_LOCK, rdBase.BlockLogs(), rdBase.CaptureErrorLog() as capture:
        yield capture


def first_reason(messages: str) -> str:
    """Reduce RDKit's messages to one line, without time stamps and the molecule's text."""
    lines = [_PREFIX.sub("", _TIMESTAMP.sub("", line)) for line in messages.splitlines()]
    reasons = (_ECHO.sub("", line).strip() for line in lines)
    reason = next((r for r in reasons if not _HEADLINE.match(r)), "RDKit gives no reason")
    position = _POSITION.search(messages)
    if position and not _POSITION.search(reason):
        reason += f" around position {position[1]}"
    return reason
