"""Metrics of classification tasks."""

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
from moltc_vllm.evaluate.metric import AnsweredRow, Metric, compute_metric, confidences
from moltc_vllm.tasks import Choice

_NO_ANSWER = -1  # predicted class of a row without an answer; it equals no true class


def classification_metrics(kind: Choice, answered: Sequence[AnsweredRow]) -> Iterator[Metric]:
    """Compute accuracy; also AUROC, AUPR and F1 for two labels, or mean F1 for more labels.

    Args:
        kind: Kind of the task's answers.
        answered: Rows with their answers, at least one.
    """
    truth, predicted = class_indices(kind, answered)
    rows = len(truth)
    accuracy = ratio(truth == predicted, np.ones(rows, dtype=bool))
    yield compute_metric(
        "accuracy", "wrong", rows, partial(accuracy_score, truth, predicted), accuracy
    )
    if len(kind.labels) == 2:
        yield from _score_metrics(*positive_scores(kind, answered))
        positive = positive_class(kind)
        yield _f1(truth == positive, predicted == positive)
        return
    # The labels are explicit, because scikit-learn would treat "no answer" as a separate class.
    present = sorted(set(truth) | set(predicted) - {_NO_ANSWER})
    for average in ("macro", "weighted"):
        f1 = partial(f1_score, truth, predicted, labels=present, average=average, zero_division=0)
        bootstrap_f1 = f1_of_classes(truth, predicted, weighted=average == "weighted")
        yield compute_metric(f"{average}_f1", "wrong", rows, f1, bootstrap_f1)


def class_indices(kind: Choice, answered: Sequence[AnsweredRow]) -> tuple[Integers, Integers]:
    """Return true and predicted class of every row, as indices into the labels.

    The predicted class of a row without an answer is -1.
    """
    indices: dict[object, int] = {label.id: index for index, label in enumerate(kind.labels)}
    truth = [indices[row.target] for row, _ in answered]
    predicted = [indices.get(answer.label_id, _NO_ANSWER) for _, answer in answered]
    return np.array(truth, dtype=np.int64), np.array(predicted, dtype=np.int64)


def label_hits(kind: Choice, answered: Sequence[AnsweredRow]) -> Flags:
    """Return whether the predicted label is the true one, ``[rows]``."""
    truth, predicted = class_indices(kind, answered)
    return truth == predicted


def positive_class(kind: Choice) -> int:
    """Return the index of the positive label of a binary task, which has the higher id."""
    return max(range(len(kind.labels)), key=lambda index: kind.labels[index].id)


def positive_scores(kind: Choice, answered: Sequence[AnsweredRow]) -> tuple[Flags, Floats, Flags]:
    """Compute the score of the positive label of a binary task.

    The score is the confidence of an answer with the positive label, and 1 minus the confidence of
    an answer with the negative label.

    Returns:
        Whether a row is positive, its score, and whether it has a score, ``[rows]`` each.
    """
    truth, predicted = class_indices(kind, answered)
    positive = positive_class(kind)
    confidence = confidences(answered)
    score = np.where(predicted == positive, confidence, 1 - confidence)
    return truth == positive, score, ~np.isnan(confidence)


def _score_metrics(positive: Flags, score: Floats, valid: Flags) -> Iterator[Metric]:
    undefined = None
    if not valid.any():
        undefined = "no answer has a confidence"
    elif positive[valid].all() or not positive[valid].any():
        undefined = "all rows have the same label"
    rows = int(valid.sum())
    for name, function, bootstrap_function in (
        ("auroc", roc_auc_score, auroc),
        ("aupr", average_precision_score, aupr),
    ):
        compute = partial(function, positive[valid], score[valid])
        bootstrap_metric = bootstrap_function(positive, score, valid)
        yield compute_metric(name, "left out", rows, compute, bootstrap_metric, undefined)


def _f1(truth: Flags, predicted: Flags) -> Metric:
    undefined = None if (truth | predicted).any() else "no row or answer is positive"
    hits = (truth & predicted).astype(np.float64)
    sizes = truth.astype(np.float64) + predicted
    compute = partial(f1_score, truth, predicted)
    return compute_metric("f1", "wrong", len(truth), compute, ratio(2 * hits, sizes), undefined)
