"""Coverage of prediction intervals: the share of measured values that they are to contain."""

from __future__ import annotations

DEFAULT_COVERAGE = 0.8


def check_coverage(coverage: float) -> float:
    """Return a coverage after checking that it is between 0 and 1, both excluded.

    Raises:
        ValueError: If it is not.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must be between 0 and 1, e.g. 0.8, not {coverage:g}")
    return float(coverage)
