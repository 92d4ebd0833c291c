"""Silence RDKit's log and extract the reason of a failure from it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rdkit import rdBase

# RDKit has one log per process. If two threads silenced it at once, the first to finish would
# enable it for the other, and a capture would collect messages of both. RDKit's parsers hold the
# GIL anyway, so serializing them with a lock costs nothing.
_LOG_LOCK = threading.RLock()

_TIMESTAMP = re.compile(r"^\[\d\d:\d\d:\d\d\] ")
_PREFIX = re.compile(r"^SMILES Parse Error: ")
_ECHO = re.compile(r" (?:while parsing: |for input: ').*$")
_INVARIANT_HEADLINE = re.compile(r"^(?:\**|[\w-]+ (?:Violation|Error))$")
_POSITION = re.compile(r"check for mistakes around position (\d+)")


class QuietLog:
    """Context manager that silences RDKit's log.

    It costs a third of `captured_log`, so use it where failures are rare. Uses may be nested;
    around many short calls, one outer use is cheaper still.
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
    """Silence RDKit's log and collect its errors in ``messages`` of the yielded object.

    Logs that were disabled before stay disabled afterwards.
    """
    # `BlockLogs` suppresses warnings such as "not removing hydrogen atom without neighbors";
    # `CaptureErrorLog` still receives errors.
    with _LOG_LOCK, rdBase.BlockLogs(), rdBase.CaptureErrorLog() as capture:
        yield capture


def first_reason(messages: str) -> str:
    """Reduce RDKit's messages to one line, without time stamps and the molecule's text."""
    lines = [_PREFIX.sub("", _TIMESTAMP.sub("", line)) for line in messages.splitlines()]
    reasons = (_ECHO.sub("", line).strip() for line in lines)
    reason = next((r for r in reasons if not _INVARIANT_HEADLINE.match(r)), "RDKit gives no reason")
    position = _POSITION.search(messages)
    if position and not _POSITION.search(reason):
        reason += f" around position {position[1]}"
    return reason
