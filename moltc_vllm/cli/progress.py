"""How far long work is, on standard error: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class Bars:
    """Progress of some parts of work, each of a known size; to be used as a context.

    Args:
        unit: What is counted, in the plural.

    Attributes:
        every_s: Seconds between two lines about the same part, where there is no terminal.
    """

    every_s = 10.0

    def __init__(self, unit: str) -> None:
        from rich.console import Console

        self.unit = unit
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars: Progress | None = _bars(self.console) if self.console.is_terminal else None
        self._shown: dict[str, TaskID] = {}
        self._parts: dict[str, _Part] = {}
        self._heard = time.monotonic()

    def __enter__(self) -> Bars:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()
            return
        for part in self._parts.values():
            self._say(part)  # the last word, also of work that did not end

    def tell(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text, markup=False)

    def begin(self, name: str, done: int = 0) -> None:
        """A part begins now; needed only of work that goes on, with so many done before."""
        self._parts[name] = _Part(name, done, time.monotonic())

    def at(self, name: str, done: int, total: int, more: str = "") -> None:
        """How far a part is.

        Args:
            name: Of the part; may be empty.
            done: So many are done.
            total: Of so many.
            more: What else is worth knowing.
        """
        now = time.monotonic()
        # A part that nobody announced began when the one before it was last heard of.
        part = self._parts.setdefault(name, _Part(name, 0, self._heard))
        self._heard = now
        part.done, part.total, part.more = done, total, more
        if self._bars is None:
            if now - part.said_at >= self.every_s or done == total:
                self._say(part)
            return
        if name not in self._shown:
            self._shown[name] = self._bars.add_task(name, total=total, more="")
        told = [f"{part.rate(now):,.1f} {self.unit}/s", *([more] if more else [])]
        self._bars.update(self._shown[name], completed=done, more=", ".join(told))

    def _say(self, part: _Part) -> None:
        if part.said == part.done:
            return
        now = time.monotonic()
        part.said, part.said_at = part.done, now
        rate = part.rate(now)
        told = [f"{part.done:,} of {part.total:,} {self.unit}"]
        if rate > 0:
            told.append(f"{rate:,.1f} {self.unit}/s")
            if part.done < part.total:
                told.append(f"{(part.total - part.done) / rate:,.0f} s left")
        if part.more:
            told.append(part.more)
        self.tell(f"{part.name}: {', '.join(told)}" if part.name else ", ".join(told))


@dataclass(slots=True)
class _Part:
    """What is known of a part of the work, and what was said of it last."""

    name: str
    first: int  # done when it began
    begin: float
    said_at: float = field(init=False)
    said: int | None = None
    done: int = 0
    total: int = 0
    more: str = ""

    def __post_init__(self) -> None:
        self.said_at = self.begin

    def rate(self, now: float) -> float:
        return (self.done - self.first) / max(now - self.begin, 1e-9)


def _bars(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[more]}"),
        console=console,
    )
