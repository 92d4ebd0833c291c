"""Number of CPU cores for worker processes."""

from __future__ import annotations

import os


def available_cpus() -> int:
    """Return the number of cores that this process may use; 1 where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
