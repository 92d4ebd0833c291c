"""Metrics of answers that are lists of terms or free text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial

import numpy as np
from sklearn.metrics import precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from moltc_vllm.evaluate.bootstrap_metrics import BootstrapMetric, Column, Floats, ratio
from moltc_vllm.evaluate.metric import AnsweredRow, Metric, compute_metric


def terms_metrics(answered: Sequence[AnsweredRow]) -> Iterator[Metric]:
    """Compute micro-averaged precision, recall and F1 of the terms of all rows.

    Case and whitespace of terms are ignored. A row without an answer has no predicted terms. The
    metric ``constant_f1`` is the F1 of the best list that is the same for all rows.

    Args:
        answered: Rows with their answers, at least one.
    """
    true = [{normalize_text(term) for term in _as_terms(row.target)} for row, _ in answered]
    predicted = [{normalize_text(term) for term in answer.items or ()} for _, answer in answered]
    hits = np.array(
        [
            len(true_terms & predicted_terms)
            for true_terms, predicted_terms in zip(true, predicted, strict=True)
        ]
    )
    true_sizes, predicted_sizes = (
        np.array([len(terms) for terms in term_sets]) for term_sets in (true, predicted)
    )

    @cache
    def scores() -> Sequence[float]:
        # The empty term occurs in no row. It is added because scikit-learn would interpret a matrix
        # with one column as a vector.
        terms = ["", *sorted(set().union(*true, *predicted))]
        binarizer = MultiLabelBinarizer(classes=terms, sparse_output=True).fit([])
        # "micro" counts the cells of the [rows, terms] matrices, regardless of their term.
        result: Sequence[float] = precision_recall_fscore_support(
            binarizer.transform(true),
            binarizer.transform(predicted),
            average="micro",
            zero_division=0,
        )
        return result

    def score(index: int) -> float:
        return scores()[index]

    no_term = None if predicted_sizes.any() else "no term was predicted"
    for index, (name, numerator, denominator, undefined) in enumerate(
        (
            ("precision", hits, predicted_sizes, no_term),
            ("recall", hits, true_sizes, None),
            ("f1", 2 * hits, true_sizes + predicted_sizes, None),
        )
    ):
        bootstrap_metric = ratio(numerator, denominator)
        compute = partial(score, index)
        yield compute_metric(name, "wrong", len(answered), compute, bootstrap_metric, undefined)
    constant_f1 = _best_constant_f1(true, true_sizes)
    all_rows = np.ones((1, len(true)))
    yield compute_metric(
        "constant_f1", "wrong", len(answered), lambda: constant_f1(all_rows)[0], constant_f1
    )


def _best_constant_f1(true: Sequence[set[str]], true_sizes: Column) -> BootstrapMetric:
    """Return the highest F1 of any list that is the answer to every row.

    The list consists of the most frequent terms. It is chosen with the measured terms of the rows
    themselves, so that no list learned from other rows does better.
    """
    binarizer = MultiLabelBinarizer(sparse_output=True)
    has_term = binarizer.fit_transform(true).astype(np.float64)  # [rows, terms]
    lengths = np.arange(1, has_term.shape[1] + 1)

    def compute(weights: Floats) -> Floats:
        counts = -np.sort(-(weights @ has_term), axis=1)  # [resamples, terms], descending
        rows, terms = weights.sum(axis=1), weights @ true_sizes
        f1 = 2 * counts.cumsum(axis=1) / (terms[:, None] + rows[:, None] * lengths)
        best: Floats = f1.max(axis=1)
        return best

    return compute


def exact_match(answered: Sequence[AnsweredRow]) -> Metric:
    """Compute the fraction of texts that equal the target, ignoring case and whitespace."""
    matches = np.array(
        [
            answer.status == "ok"
            and normalize_text(answer.text or "") == normalize_text(str(row.target))
            for row, answer in answered
        ]
    )
    bootstrap_metric = ratio(matches, np.ones(len(matches), dtype=bool))
    return compute_metric("exact_match", "wrong", len(matches), matches.mean, bootstrap_metric)


def normalize_text(text: str) -> str:
    """Fold case and collapse whitespace."""
    return " ".join(text.split()).casefold()


def _as_terms(target: object) -> tuple[str, ...]:
    assert isinstance(target, tuple)
    return target
