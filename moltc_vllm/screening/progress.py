"""Progress of a screen and the callback that receives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class ScreenProgress:
    """Rows answered so far, and the time spent in each stage.

    Attributes:
        total: Rows of the whole screen.
        done: Rows that have an answer, including those of earlier calls.
        failed: Rows answered in this call that failed.
        reading_s: Seconds spent reading the next pairs.
        waiting_s: Seconds spent waiting for the engine.
        writing_s: Seconds spent writing parts.
    """

    total: int
    done: int = 0
    failed: int = 0
    reading_s: float = 0.0
    waiting_s: float = 0.0
    writing_s: float = 0.0


class ProgressCallback(Protocol):
    """Callback that receives the progress of a screen."""

    def update(self, progress: ScreenProgress) -> None:
        """Handle new progress.

        Args:
            progress: Current state; the same object is updated in place and passed every time.
        """
        ...


class NullProgress:
    """Callback that ignores progress."""

    def update(self, progress: ScreenProgress) -> None:
        """See `ProgressCallback`."""
