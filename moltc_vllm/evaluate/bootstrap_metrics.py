"""Metrics of many resamples at once.

A resample is a row of weights: how many times each row of the data was drawn. All functions take
``[resamples, rows]`` and give ``[resamples]``, NaN where the metric is not defined. With weights
that are all 1 they are scikit-learn's metrics, which the tests hold them to.
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


def ratio(above: Column, below: Column) -> BootstrapMetric:
    """Sum of ``above`` over sum of ``below``, both one value per row."""
    columns = np.stack([above, below], axis=1).astype(np.float64)  # [rows, 2]

    def resampled(weights: Floats) -> Floats:
        sums = weights @ columns
        return _divide(sums[:, 0], sums[:, 1])

    return resampled


def root(of: BootstrapMetric) -> BootstrapMetric:
    """The square root of another one."""
    return lambda weights: np.sqrt(of(weights))


def r2(target: Floats, value: Floats, there: Flags) -> BootstrapMetric:
    """Explained share of the variance, over the rows that are ``there``."""
    target, squares = target[there], (target[there] - value[there]) ** 2
    # Rounding leaves a little variance where all targets of a resample are equal.
    nothing = (1e-12 * np.abs(target).max(initial=0.0)) ** 2

    def resampled(weights: Floats) -> Floats:
        weights = weights[:, there]
        total = weights.sum(axis=1)
        mean = _divide(weights @ target, total)
        spread = target[None, :] - mean[:, None]  # [resamples, rows]
        variance = np.einsum("ij,ij,ij->i", weights, spread, spread)
        variance[variance <= nothing * total] = 0.0
        return 1.0 - _divide(weights @ squares, variance)

    return resampled


def auroc(positive: Flags, score: Floats, there: Flags) -> BootstrapMetric:
    """Area under the ROC curve: how often a positive has the higher score; ties count half."""
    by_score = _ByScore(positive, score, there)

    def resampled(weights: Floats) -> Floats:
        positives, negatives = by_score(weights)
        below = np.cumsum(negatives, axis=1) - negatives / 2
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        return _divide((positives * below).sum(axis=1), pairs)

    return resampled


def aupr(positive: Flags, score: Floats, there: Flags) -> BootstrapMetric:
    """Average precision: precision at every score, weighted by the recall gained there."""
    by_score = _ByScore(positive, score, there)

    def resampled(weights: Floats) -> Floats:
        positives, negatives = by_score(weights)
        found = np.cumsum(positives[:, ::-1], axis=1)[:, ::-1]  # with this score or a higher one
        named = found + np.cumsum(negatives[:, ::-1], axis=1)[:, ::-1]
        # A score that was not drawn gains no recall, whatever its precision.
        precision = np.divide(found, named, out=np.zeros_like(found), where=named > 0)
        area = _divide((positives * precision).sum(axis=1), positives.sum(axis=1))
        # As for AUROC: with one class only there is nothing to tell apart.
        area[negatives.sum(axis=1) == 0] = np.nan
        return area

    return resampled


def f1_of_classes(truth: Integers, given: Integers, *, weighted: bool) -> BootstrapMetric:
    """Mean F1 of the classes that occur in truth or answers, each alike or by its true rows.

    Args:
        truth: Class of each row, from 0.
        given: Class that was answered; negative if none was.
        weighted: By the number of rows of a class.
    """
    classes = int(max(truth.max(), given.max())) + 1
    answered = given >= 0
    right = answered & (truth == given)

    def resampled(weights: Floats) -> Floats:
        true = _class_sums(weights, truth, classes)
        named = _class_sums(weights[:, answered], given[answered], classes)
        hits = _class_sums(weights[:, right], truth[right], classes)
        sizes = true + named
        f1 = np.divide(2 * hits, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        shares = true if weighted else (sizes > 0).astype(np.float64)
        return _divide((f1 * shares).sum(axis=1), shares.sum(axis=1))

    return resampled


def calibration_error(bins: Integers, gap: Floats, there: Flags) -> BootstrapMetric:
    """Mean size of the gap of a bin; the bins stay those of all rows.

    Args:
        bins: Of the rows that are ``there``, from 0.
        gap: Confidence less hit (0 or 1) of those rows.
        there: Which of all rows.
    """
    count = int(bins.max(initial=-1)) + 1

    def resampled(weights: Floats) -> Floats:
        weights = weights[:, there]
        gaps = np.abs(_class_sums(weights * gap, bins, count)).sum(axis=1)
        return _divide(gaps, weights.sum(axis=1))

    return resampled


class _ByScore:
    """Weights of the positives and negatives of every different score, rising."""

    def __init__(self, positive: Flags, score: Floats, there: Flags) -> None:
        rows = np.flatnonzero(there)
        self.rows = rows[np.argsort(score[rows], kind="stable")]
        self.positive = positive[self.rows]
        _, self.starts = np.unique(score[self.rows], return_index=True)

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        weights = weights[:, self.rows]
        if not self.rows.size:
            return weights, weights
        positives = np.add.reduceat(weights * self.positive, self.starts, axis=1)
        return positives, np.add.reduceat(weights, self.starts, axis=1) - positives


def _class_sums(weights: Floats, classes: Integers, count: int) -> Floats:
    """Sums of the weights of each class, ``[resamples, classes]``."""
    sums = np.zeros((len(weights), count))
    if classes.size:
        order = np.argsort(classes, kind="stable")
        present, starts = np.unique(classes[order], return_index=True)
        sums[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums


def _divide(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)
