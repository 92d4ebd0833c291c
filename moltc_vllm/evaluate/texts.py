"""Metrics of answers that are lists of terms or free text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial

import numpy as np
from sklearn.metrics import precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from moltc_vllm.evaluate.bootstrap_metrics import ratio
from moltc_vllm.evaluate.metric import Answered, Metric, statistic


def terms_metrics(answered: Sequence[Answered]) -> Iterator[Metric]:
    """Precision, recall and F1 over all pairs of a row and a term; case and blanks do not matter.

    A row without an answer named no term.
    """
    true = [{plain(term) for term in _tuple(row.target)} for row, _ in answered]
    given = [{plain(term) for term in answer.items or ()} for _, answer in answered]
    found = np.array([len(one & other) for one, other in zip(true, given, strict=True)])
    wanted, named = (np.array([len(terms) for terms in sets]) for sets in (true, given))

    @cache
    def scores() -> Sequence[float]:
        # No row has the empty term: a matrix of one column would be taken for a vector.
        terms = ["", *sorted(set().union(*true, *given))]
        table = MultiLabelBinarizer(classes=terms, sparse_output=True).fit([])
        # Binary matrices of [rows, terms]; "micro" counts their cells, whatever the term.
        every: Sequence[float] = precision_recall_fscore_support(
            table.transform(true), table.transform(given), average="micro", zero_division=0
        )
        return every

    def calculate(place: int) -> float:
        return scores()[place]

    for place, (name, above, below, undefined) in enumerate(
        (
            ("precision", found, named, None if named.any() else "no term was named"),
            ("recall", found, wanted, None),
            ("f1", 2 * found, wanted + named, None),
        )
    ):
        yield statistic(
            name,
            "wrong",
            len(answered),
            partial(calculate, place),
            ratio(above, below),
            undefined,
        )


def exact_match(answered: Sequence[Answered]) -> Metric:
    """How often the text is the true one, apart from case and blanks."""
    right = np.array(
        [
            answer.status == "ok" and plain(answer.text or "") == plain(str(row.target))
            for row, answer in answered
        ]
    )
    every = np.ones(len(right), dtype=bool)
    return statistic("exact_match", "wrong", len(right), right.mean, ratio(right, every))


def plain(text: str) -> str:
    """A text for comparison."""
    return " ".join(text.split()).casefold()


def _tuple(target: object) -> tuple[str, ...]:
    assert isinstance(target, tuple)
    return target
