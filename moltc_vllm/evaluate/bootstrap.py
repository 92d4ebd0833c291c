"""Percentile bootstrap: how far a metric would move with other rows of the same kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from moltc_vllm.evaluate.bootstrap_metrics import BootstrapMetric, Floats

LEVEL = 0.95
# Weights held at once, 16 MB: what is computed from them stays near the cache.
_CELLS = 2_000_000


def bootstrap(
    metrics: Mapping[str, BootstrapMetric], rows: int, *, resamples: int, seed: int
) -> dict[str, tuple[float, float] | None]:
    """Intervals that hold the middle 95 % of a metric over resamples of the rows.

    All metrics see the same resamples. Resamples in which a metric is not defined are left out.
    What never happened in the rows happens in no resample: a share of 0 or 1 has an interval of
    no width.

    Args:
        metrics: Each of many resamples at once.
        rows: How many there are.
        resamples: How many to draw.
        seed: Of the draw.

    Returns:
        Lower and upper end, or ``None`` where most resamples have no value.

    Source: Efron 1979.
    """
    drawn: dict[str, list[Floats]] = {name: [] for name in metrics}
    for weights in _weights(rows, resamples, seed):
        for name, metric in metrics.items():
            drawn[name].append(metric(weights))
    return {name: _middle(values) for name, values in drawn.items()}


def _weights(rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How many times each row is in each resample, some resamples at a time."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _CELLS // max(1, rows))
    for start in range(0, resamples if rows else 0, at_once):
        count = min(at_once, resamples - start)
        places = generator.integers(0, rows, size=(count, rows))
        places += np.arange(count)[:, None] * rows
        weights = np.bincount(places.ravel(), minlength=count * rows)
        yield weights.reshape(count, rows).astype(np.float64)


def _middle(values: list[Floats]) -> tuple[float, float] | None:
    every = np.concatenate(values) if values else np.empty(0)
    there = every[np.isfinite(every)]
    if not there.size or 2 * there.size < every.size:
        return None
    low, high = np.quantile(there, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
