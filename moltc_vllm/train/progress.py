"""Progress reports of a training run."""

from __future__ import annotations

import sys
from typing import Protocol


class TrainingProgress(Protocol):
    """Receiver of a run's progress."""

    def message(self, text: str) -> None:
        """Report an event in one line."""
        ...

    def update(self, step: int, max_steps: int, pairs_per_second: float, loss: float) -> None:
        """Report a finished step.

        Args:
            step: Number of finished steps.
            max_steps: Number of steps of the run.
            pairs_per_second: Mean throughput since the command started.
            loss: Loss of the step.
        """
        ...


class NullTrainingProgress:
    """Receiver that discards progress, for all processes but the main one."""

    def message(self, text: str) -> None:
        """Discard the message."""

    def update(self, step: int, max_steps: int, pairs_per_second: float, loss: float) -> None:
        """Discard the step."""


class PrintedProgress:
    """Receiver that prints progress to standard error, for terminals and log files.

    Args:
        stage: Name that begins each line.
        every: Interval of printed steps; the first step is always printed.
    """

    def __init__(self, stage: str, every: int) -> None:
        self._stage = stage
        self._every = every

    def message(self, text: str) -> None:
        """Print the message."""
        print(f"{self._stage}: {text}", file=sys.stderr, flush=True)

    def update(self, step: int, max_steps: int, pairs_per_second: float, loss: float) -> None:
        """Print the step if it is due."""
        if step % self._every == 0 or step == 1:
            self.message(
                f"step {step} of {max_steps}, {pairs_per_second:.0f} pairs/s, loss {loss:.3f}"
            )
