"""Calibration: agreement of confidence and accuracy, in bins of similar confidence.

Source: Guo et al., ICML 2017; bins of equal mass as in Nixon et al. 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moltc_vllm.evaluate.bootstrap_metrics import Flags, Floats, Integers, calibration_error
from moltc_vllm.evaluate.metric import Metric, compute_metric

BINS = 10


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Answers of similar confidence.

    Attributes:
        rows: Number of answers.
        confidence: Mean confidence.
        hit_rate: Fraction of answers that are correct.
    """

    rows: int
    confidence: float
    hit_rate: float


def bins_of_equal_mass(confidence: Floats, bins: int = BINS) -> Integers:
    """Assign each confidence to a bin, numbered from 0 without gaps.

    Equal confidences share a bin, so that the result does not depend on the order of the rows.

    Args:
        confidence: ``[rows]`` confidences.
        bins: Number of bins; there are fewer if many confidences are equal.
    """
    if not confidence.size:
        return np.empty(0, dtype=np.int64)
    _, group, sizes = np.unique(confidence, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - (sizes + 1) / 2  # mean rank of the group's rows
    bin_of_row = (middle * bins // len(confidence))[group]
    return np.unique(bin_of_row, return_inverse=True)[1].astype(np.int64)


def calibrate(confidence: Floats, hit: Flags, valid: Flags) -> tuple[Metric, list[CalibrationBin]]:
    """Compute the expected calibration error and its bins.

    Args:
        confidence: ``[rows]`` confidences.
        hit: ``[rows]``, whether an answer is correct.
        valid: ``[rows]``, whether a row has a confidence and a hit.
    """
    confidence, hits = confidence[valid], hit[valid].astype(np.float64)
    bins = bins_of_equal_mass(confidence)
    sizes = np.bincount(bins)
    table = [
        CalibrationBin(int(size), float(mean_confidence), float(hit_rate))
        for size, mean_confidence, hit_rate in zip(
            sizes,
            np.bincount(bins, confidence) / sizes,
            np.bincount(bins, hits) / sizes,
            strict=True,
        )
    ]

    def error() -> float:
        gaps = sum(entry.rows * abs(entry.confidence - entry.hit_rate) for entry in table)
        return gaps / float(sizes.sum())

    metric = compute_metric(
        "calibration_error",
        "left out",
        len(confidence),
        error,
        calibration_error(bins, confidence - hits, valid),
        None if table else "no answer has a confidence",
    )
    return metric, table
