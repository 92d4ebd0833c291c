"""Metrics of answers that are one of several labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    roc_auc_score,
)

from moltc_vllm.evaluate.bootstrap_metrics import (
    Flags,
    Floats,
    Integers,
    aupr,
    auroc,
    f1_of_classes,
    ratio,
)
from moltc_vllm.evaluate.metric import Answered, Metric, confidences, statistic
from moltc_vllm.tasks import Choice

_NONE = -1
"""The class of a row without an answer: never the true one."""


def classification_metrics(kind: Choice, answered: Sequence[Answered]) -> Iterator[Metric]:
    """Accuracy; with two labels AUROC, AUPR and F1 of the positive one, else the mean F1s."""
    truth, given = classes(kind, answered)
    rows = len(truth)
    right = truth == given
    every = np.ones(rows, dtype=bool)
    accuracy = partial(accuracy_score, truth, given)
    yield statistic("accuracy", "wrong", rows, accuracy, ratio(right, every))
    if len(kind.labels) == 2:
        yield from _of_scores(*positive_scores(kind, answered))
        positive = positive_class(kind)
        yield _f1(truth == positive, given == positive)
        return
    # Named, because scikit-learn would take no answer for a class of its own.
    present = sorted(set(truth) | set(given) - {_NONE})
    for average in ("macro", "weighted"):
        f1 = partial(f1_score, truth, given, labels=present, average=average, zero_division=0)
        resampled = f1_of_classes(truth, given, weighted=average == "weighted")
        yield statistic(f"{average}_f1", "wrong", rows, f1, resampled)


def classes(kind: Choice, answered: Sequence[Answered]) -> tuple[Integers, Integers]:
    """The true and the answered label of every row, as its place among the labels."""
    places: dict[object, int] = {label.id: place for place, label in enumerate(kind.labels)}
    truth = [places[row.target] for row, _ in answered]
    given = [places.get(answer.label_id, _NONE) for _, answer in answered]
    return np.array(truth, dtype=np.int64), np.array(given, dtype=np.int64)


def label_hits(kind: Choice, answered: Sequence[Answered]) -> Flags:
    """Whether the answered label is the true one."""
    truth, given = classes(kind, answered)
    return truth == given


def positive_class(kind: Choice) -> int:
    """Of two labels, the place of the positive one: that with the higher id."""
    return max(range(len(kind.labels)), key=lambda place: kind.labels[place].id)


def positive_scores(kind: Choice, answered: Sequence[Answered]) -> tuple[Flags, Floats, Flags]:
    """How much each answer speaks for the positive one of two labels.

    That is its confidence if it chose the positive label, and 1 less its confidence if not.

    Returns:
        Which rows are positive, their scores, and which rows have one, ``[rows]`` each.
    """
    truth, given = classes(kind, answered)
    positive = positive_class(kind)
    confidence = confidences(answered)
    score = np.where(given == positive, confidence, 1 - confidence)
    return truth == positive, score, ~np.isnan(confidence)


def _of_scores(truth: Flags, score: Floats, there: Flags) -> Iterator[Metric]:
    undefined = None
    if not there.any():
        undefined = "no answer has a confidence"
    elif truth[there].all() or not truth[there].any():
        undefined = "one class only"
    rows = int(there.sum())
    for name, function, resampled in (
        ("auroc", roc_auc_score, auroc),
        ("aupr", average_precision_score, aupr),
    ):
        value = partial(function, truth[there], score[there])
        again = resampled(truth, score, there)
        yield statistic(name, "left out", rows, value, again, undefined)


def _f1(truth: Flags, given: Flags) -> Metric:
    undefined = None if (truth | given).any() else "no row is positive, and no answer"
    right, sizes = (truth & given).astype(np.float64), truth.astype(np.float64) + given
    value = partial(f1_score, truth, given)
    return statistic("f1", "wrong", len(truth), value, ratio(2 * right, sizes), undefined)
