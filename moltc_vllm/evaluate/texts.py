"""Metrics of answers that are lists of terms or free text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial

import numpy as np
from sklearn.metrics import precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from moltc_vllm.evaluate.bootstrap_metrics import ratio
from moltc_vllm.evaluate.metric import AnsweredRow, Metric, compute_metric


def terms_metrics(answered: Sequence[AnsweredRow]) -> Iterator[Metric]:
    """Compute micro-averaged precision, recall and F1 of the terms of all rows.

    Case and whitespace of terms are ignored. A row without an answer has no predicted terms.

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
