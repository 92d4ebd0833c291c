"""Percentile bootstrap intervals of metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from moltc_vllm.evaluate.bootstrap_metrics import BootstrapMetric, Floats

LEVEL = 0.95

# Number of weights in memory at once, 16 MB: small enough to stay near the processor's caches.
_MAX_WEIGHTS = 2_000_000


def bootstrap(
    metrics: Mapping[str, BootstrapMetric], rows: int, *, resamples: int, seed: int
) -> dict[str, tuple[float, float] | None]:
    """Compute the interval that holds the middle 95 % of each metric over resamples of the rows.

    All metrics get the same resamples. A resample in which a metric is undefined does not count. A
    fraction of exactly 0 or 1 is the same in every resample, so its interval has width 0.

    Args:
        metrics: Metrics by name, each evaluated on several resamples at once.
        rows: Number of rows.
        resamples: Number of resamples to draw.
        seed: Seed of the draw.

    Returns:
        Lower and upper end by name, or ``None`` if the metric is undefined in most resamples.

    Source: Efron 1979.
    """
    values: dict[str, list[Floats]] = {name: [] for name in metrics}
    for weights in _resample_weights(rows, resamples, seed):
        for name, metric in metrics.items():
            values[name].append(metric(weights))
    return {name: _percentile_interval(chunks) for name, chunks in values.items()}


def _resample_weights(rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each row occurs in each resample, ``[chunk, rows]``."""
    generator = np.random.default_rng(seed)
    chunk = max(1, _MAX_WEIGHTS // max(1, rows))
    for start in range(0, resamples if rows else 0, chunk):
        count = min(chunk, resamples - start)
        indices = generator.integers(0, rows, size=(count, rows))
        indices += np.arange(count)[:, None] * rows
        weights = np.bincount(indices.ravel(), minlength=count * rows)
        yield weights.reshape(count, rows).astype(np.float64)


def _percentile_interval(chunks: list[Floats]) -> tuple[float, float] | None:
    values = np.concatenate(chunks) if chunks else np.empty(0)
    defined = values[np.isfinite(values)]
    if not defined.size or 2 * defined.size < values.size:
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
