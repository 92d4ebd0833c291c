"""Progress of long commands on standard error: bars on a terminal, periodic lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class ProgressBars:
    """Progress of one or more named tasks of known size; used as a context manager.

    Args:
        unit: Plural noun for the counted items, e.g. ``rows``.

    Attributes:
        every_s: Seconds between two lines about the same task where there is no terminal.
    """

    every_s = 10.0

    def __init__(self, unit: str) -> None:
        from rich.console import Console

        self.unit = unit
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars: Progress | None = _new_bars(self.console) if self.console.is_terminal else None
        self._bar_ids: dict[str, TaskID] = {}
        self._tasks: dict[str, _TaskState] = {}
        self._last_update = time.monotonic()

    def __enter__(self) -> ProgressBars:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()
            return
        for task in self._tasks.values():
            self._print_status(task)  # also for tasks that stopped before their total

    def print_line(self, text: str) -> None:
        """Print a line above the bars."""
        self.console.print(text, markup=False)

    def start_task(self, name: str, done: int = 0) -> None:
        """Start the clock of a task; needed only to resume one whose first items are done.

        Args:
            name: Name of the task.
            done: Items done by an earlier run, which do not count in the rate.
        """
        self._tasks[name] = _TaskState(name, done, time.monotonic())

    def update(self, name: str, done: int, total: int, more: str = "") -> None:
        """Show how many items of a task are done.

        Args:
            name: Name of the task; may be empty.
            done: Number of finished items.
            total: Number of all items.
            more: Text shown behind the rate.
        """
        now = time.monotonic()
        # A task that was not started explicitly follows the previous one without a pause.
        task = self._tasks.setdefault(name, _TaskState(name, 0, self._last_update))
        self._last_update = now
        task.done, task.total, task.more = done, total, more
        if self._bars is None:
            if now - task.printed_at >= self.every_s or done == total:
                self._print_status(task)
            return
        if name not in self._bar_ids:
            self._bar_ids[name] = self._bars.add_task(name, total=total, more="")
        texts = [f"{task.rate(now):,.1f} {self.unit}/s", *([more] if more else [])]
        self._bars.update(self._bar_ids[name], completed=done, more=", ".join(texts))

    def _print_status(self, task: _TaskState) -> None:
        if task.printed_done == task.done:
            return
        now = time.monotonic()
        task.printed_done, task.printed_at = task.done, now
        rate = task.rate(now)
        texts = [f"{task.done:,} of {task.total:,} {self.unit}"]
        if rate > 0:
            texts.append(f"{rate:,.1f} {self.unit}/s")
            if task.done < task.total:
                texts.append(f"{(task.total - task.done) / rate:,.0f} s left")
        if task.more:
            texts.append(task.more)
        self.print_line(f"{task.name}: {', '.join(texts)}" if task.name else ", ".join(texts))


@dataclass(slots=True)
class _TaskState:
    """Counts of one task and its last printed line.

    Attributes:
        name: Name of the task.
        initial: Items that were done when the clock started.
        started_at: Start of the clock, seconds of `time.monotonic`.
        printed_at: Time of the last printed line, or of the start.
        printed_done: Finished items in the last printed line, if there is one.
        done: Number of finished items.
        total: Number of all items.
        more: Text shown behind the rate.
    """

    name: str
    initial: int
    started_at: float
    printed_at: float = field(init=False)
    printed_done: int | None = None
    done: int = 0
    total: int = 0
    more: str = ""

    def __post_init__(self) -> None:
        self.printed_at = self.started_at

    def rate(self, now: float) -> float:
        return (self.done - self.initial) / max(now - self.started_at, 1e-9)


def _new_bars(console: Console) -> Progress:
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
