"""Metrics that are computed on many bootstrap resamples at once.

A resample is a vector of weights: how often each row of the data was drawn. A `BootstrapMetric`
maps weights ``[resamples, rows]`` to values ``[resamples]``, NaN where it is undefined. With all
weights 1 the values equal scikit-learn's, as tests check.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Column = Floats | Integers | Flags

BootstrapMetric = Callable[[Floats], Floats]


def ratio(numerator: Column, denominator: Column) -> BootstrapMetric:
    """Return the metric that is the ratio of two sums over the rows.

    Args:
        numerator: ``[rows]`` summands of the numerator.
        denominator: ``[rows]`` summands of the denominator.
    """
    columns = np.stack([numerator, denominator], axis=1).astype(np.float64)  # [rows, 2]

    def compute(weights: Floats) -> Floats:
        sums = weights @ columns
        return _divide(sums[:, 0], sums[:, 1])

    return compute


def square_root(metric: BootstrapMetric) -> BootstrapMetric:
    """Return the metric that is the square root of another one."""
    return lambda weights: np.sqrt(metric(weights))


def r2(target: Floats, value: Floats, valid: Flags) -> BootstrapMetric:
    """Return the coefficient of determination as a metric.

    Args:
        target: ``[rows]`` measured values.
        value: ``[rows]`` predicted values.
        valid: ``[rows]``, whether a row has a predicted value.
    """
    target, squares = target[valid], (target[valid] - value[valid]) ** 2
    # Rounding leaves a tiny variance where all targets of a resample are equal.
    tolerance = (1e-12 * np.abs(target).max(initial=0.0)) ** 2

    def compute(weights: Floats) -> Floats:
        weights = weights[:, valid]
        total = weights.sum(axis=1)
        mean = _divide(weights @ target, total)
        deviation = target[None, :] - mean[:, None]  # [resamples, rows]
        variance = np.einsum("ij,ij,ij->i", weights, deviation, deviation)
        variance[variance <= tolerance * total] = 0.0
        return 1.0 - _divide(weights @ squares, variance)

    return compute


def auroc(positive: Flags, score: Floats, valid: Flags) -> BootstrapMetric:
    """Return the area under the ROC curve as a metric; equal scores count half.

    Args:
        positive: ``[rows]``, whether a row is positive.
        score: ``[rows]`` scores of the positive label.
        valid: ``[rows]``, whether a row has a score.
    """
    groups = _ScoreGroups(positive, score, valid)

    def compute(weights: Floats) -> Floats:
        positives, negatives = groups.sums(weights)
        lower_negatives = np.cumsum(negatives, axis=1) - negatives / 2
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        return _divide((positives * lower_negatives).sum(axis=1), pairs)

    return compute


def aupr(positive: Flags, score: Floats, valid: Flags) -> BootstrapMetric:
    """Return average precision as a metric: precision at each score, weighted by the recall gain.

    Args:
        positive: ``[rows]``, whether a row is positive.
        score: ``[rows]`` scores of the positive label.
        valid: ``[rows]``, whether a row has a score.
    """
    groups = _ScoreGroups(positive, score, valid)

    def compute(weights: Floats) -> Floats:
        positives, negatives = groups.sums(weights)
        # Sums over the rows with at least this score.
        true_positives = np.cumsum(positives[:, ::-1], axis=1)[:, ::-1]
        predicted = true_positives + np.cumsum(negatives[:, ::-1], axis=1)[:, ::-1]
        # A score that was not drawn has no recall gain, so its precision does not matter.
        precision = np.divide(
            true_positives, predicted, out=np.zeros_like(predicted), where=predicted > 0
        )
        area = _divide((positives * precision).sum(axis=1), positives.sum(axis=1))
        # A single class leaves nothing to separate; AUROC is undefined there as well.
        area[negatives.sum(axis=1) == 0] = np.nan
        return area

    return compute


def f1_of_classes(truth: Integers, predicted: Integers, *, weighted: bool) -> BootstrapMetric:
    """Return the mean F1 of the classes in the true or predicted labels as a metric.

    Args:
        truth: ``[rows]`` true class of each row, from 0.
        predicted: ``[rows]`` predicted class; negative without a prediction.
        weighted: Whether to weight classes by their number of true rows; otherwise equally.
    """
    classes = int(max(truth.max(), predicted.max())) + 1
    answered = predicted >= 0
    correct = answered & (truth == predicted)

    def compute(weights: Floats) -> Floats:
        true_sizes = _class_sums(weights, truth, classes)
        predicted_sizes = _class_sums(weights[:, answered], predicted[answered], classes)
        hits = _class_sums(weights[:, correct], truth[correct], classes)
        sizes = true_sizes + predicted_sizes
        f1 = np.divide(2 * hits, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        shares = true_sizes if weighted else (sizes > 0).astype(np.float64)
        return _divide((f1 * shares).sum(axis=1), shares.sum(axis=1))

    return compute


def calibration_error(bins: Integers, gap: Floats, valid: Flags) -> BootstrapMetric:
    """Return the expected calibration error with fixed bins as a metric.

    Args:
        bins: ``[valid rows]`` bin of each valid row, from 0.
        gap: ``[valid rows]`` confidence minus hit (0 or 1).
        valid: ``[rows]``, whether a row has a confidence.
    """
    count = int(bins.max(initial=-1)) + 1

    def compute(weights: Floats) -> Floats:
        weights = weights[:, valid]
        gaps = np.abs(_class_sums(weights * gap, bins, count)).sum(axis=1)
        return _divide(gaps, weights.sum(axis=1))

    return compute


class _ScoreGroups:
    """Rows grouped by equal score, in ascending order."""

    def __init__(self, positive: Flags, score: Floats, valid: Flags) -> None:
        rows = np.flatnonzero(valid)
        self.rows = rows[np.argsort(score[rows], kind="stable")]
        self.positive = positive[self.rows]
        _, self.starts = np.unique(score[self.rows], return_index=True)

    def sums(self, weights: Floats) -> tuple[Floats, Floats]:
        """Sum the weights of positives and negatives, ``[resamples, groups]`` each."""
        weights = weights[:, self.rows]
        if not self.rows.size:
            return weights, weights
        positives = np.add.reduceat(weights * self.positive, self.starts, axis=1)
        return positives, np.add.reduceat(weights, self.starts, axis=1) - positives


def _class_sums(weights: Floats, classes: Integers, count: int) -> Floats:
    """Sum the weights of each class, ``[resamples, classes]``."""
    sums = np.zeros((len(weights), count))
    if classes.size:
        order = np.argsort(classes, kind="stable")
        present, starts = np.unique(classes[order], return_index=True)
        sums[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(
        numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0
    )
