"""Calibration: are answers of confidence 0.7 right in seven of ten cases?

Source: Guo et al., ICML 2017; bins of equal mass as in Nixon et al. 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moltc_vllm.evaluate.bootstrap_metrics import Flags, Floats, Integers, calibration_error
from moltc_vllm.evaluate.metric import Metric, statistic

BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of similar confidence: how many, its mean, and the share that is right."""

    rows: int
    confidence: float
    hit_rate: float


def bins_of_equal_mass(confidence: Floats, bins: int = BINS) -> Integers:
    """The bin of each confidence, from 0 and without gaps.

    Equal confidences are never parted, so that the bins do not depend on the order of the rows.
    """
    if not confidence.size:
        return np.empty(0, dtype=np.int64)
    _, group, sizes = np.unique(confidence, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - (sizes + 1) / 2  # place of the group's middle in the order
    wanted = (middle * bins // len(confidence))[group]
    return np.unique(wanted, return_inverse=True)[1].astype(np.int64)


def calibrate(confidence: Floats, hit: Flags, there: Flags) -> tuple[Metric, list[Bin]]:
    """Expected calibration error and its bins.

    Args:
        confidence: Of each row, ``[rows]``.
        hit: Whether it is right.
        there: Rows that have both.
    """
    confidence, right = confidence[there], hit[there].astype(np.float64)
    bins = bins_of_equal_mass(confidence)
    sizes = np.bincount(bins)
    table = [
        Bin(int(size), float(said), float(was))
        for size, said, was in zip(
            sizes,
            np.bincount(bins, confidence) / sizes,
            np.bincount(bins, right) / sizes,
            strict=True,
        )
    ]
    error = statistic(
        "calibration_error",
        "left out",
        len(confidence),
        lambda: sum(one.rows * abs(one.confidence - one.hit_rate) for one in table) / sizes.sum(),
        calibration_error(bins, confidence - right, there),
        None if table else "no answer has a confidence",
    )
    return error, table
