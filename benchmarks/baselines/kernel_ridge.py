"""Kernel ridge regression on pairs, with a Tanimoto kernel for each of both molecules.

Labels: two-step kernel ridge regression (`baselines.two_step_ridge`) on what the rates of each
molecule (`baselines.rates`) do not explain, one label against the rest. Penalties are selected for
pairs with two known molecules by the valid rows, and for pairs with unknown molecules by leaving
known molecules out of the train pairs. Scores become probabilities by a logistic function or, for
more than two labels, a softmax, fitted on the same pairs.

Numbers: kernel ridge regression on the train pairs themselves. The kernel of two pairs is
``(1 + k) (1 + k')`` of the similarities of their first and second molecules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from baselines.answers import Array, label_answers, number_answers, targets
from baselines.problem import Answers, Problem, Solution, cpu_seconds
from baselines.rates import Index, MoleculeIndexer, combine_rates, fit_rates, molecules_of
from baselines.tanimoto import tanimoto_kernel
from baselines.two_step_ridge import PENALTIES, PairWeights, RidgeKernel, residual_matrix
from moltc_vllm.data import Row
from moltc_vllm.tasks import Number, Task

PAIR_PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3)
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
MAX_SELECTION_PAIRS = 6000
"""Number of pairs, drawn at random, by which penalties are selected."""

_DEFAULT_PENALTIES = (1.0, 1.0)  # where no pair can select them
_BLOCK = 2048


def settings_of(task: Task) -> dict[str, Any]:
    """Return the settings with which a task is trained."""
    is_number = isinstance(task.kind, Number)
    penalties = PAIR_PENALTIES if is_number else penalties_of(task)
    return {"kernel": "tanimoto of Morgan counts", "penalties": list(penalties)}


def penalties_of(task: Task) -> tuple[float, ...]:
    """Return the penalties to choose from, fewer for many labels."""
    return PENALTIES if _num_labels(task) == 2 else PENALTIES[::2]


def solve(problem: Problem, *, seed: int) -> Solution:
    """Train, select penalties and predict the scored rows.

    Args:
        problem: Rows to train on, to select with, and to predict.
        seed: Seed of the pairs that select penalties.

    Raises:
        ValueError: If RDKit cannot read a molecule.
    """
    begin = cpu_seconds()
    if isinstance(problem.task.kind, Number):
        answers, selected, trained = _solve_numbers(problem)
    else:
        model = LabelRidge(problem, np.random.default_rng(seed))
        answers, selected = model.answers(problem.test_rows)
        trained = cpu_seconds()  # penalties are selected only for the kinds of pairs that occur
    counts = len(problem.train), len(problem.valid)
    return Solution(answers, trained - begin, cpu_seconds() - trained, *counts, selected)


class _Selection(NamedTuple):
    """Pairs of known molecules and their labels, by which settings are selected."""

    pairs: Index
    labels: Index


@dataclass(frozen=True, slots=True)
class _Fit:
    """Penalties of both roles, and the function from scores to probabilities."""

    penalties: tuple[float, float]
    logistic: LogisticRegression | None
    temperature: float

    def probabilities(self, scores: Array) -> Array:
        """Return the probabilities of labels, ``[pairs, labels]``."""
        if scores.shape[1] == 1:
            if self.logistic is None:
                positive = scores[:, 0].clip(0, 1)
                return np.stack([1 - positive, positive], axis=1)
            return self.logistic.predict_proba(scores)
        return softmax(self.temperature * scores, axis=1)


class LabelRidge:
    """Two-step kernel ridge regression of labels.

    Args:
        problem: Rows to train on, to select with, and to predict.
        generator: Generator that draws the pairs that select penalties.
    """

    def __init__(self, problem: Problem, generator: np.random.Generator) -> None:
        self.task = problem.task
        self.indexer = MoleculeIndexer(problem.train, shared=self.task.symmetric)
        self.unknown_index = [count - 1 for count in self.indexer.counts]
        self.pairs = self.indexer(molecules_of(problem.train))
        self.ids, self.labels = np.unique(targets(problem.train), return_inverse=True)
        self.prior, self.rates = fit_rates(self.pairs, self.labels, len(self.ids), self.indexer)
        # One score suffices for two labels.
        self.scored_labels = [1] if len(self.ids) == 2 else list(range(len(self.ids)))
        drawn = generator.permutation(len(self.pairs))[:MAX_SELECTION_PAIRS]
        self.train_selection = _Selection(self.pairs[drawn], self.labels[drawn])
        self.valid_selection = self._select_known(problem.valid, generator)
        self.unknown = self._unknown_molecules(problem.test_rows)
        self.kernels = self._kernels()

    def answers(self, rows: Sequence[Row]) -> tuple[Answers, str]:
        """Answer rows, and describe the selected penalties.

        Args:
            rows: Rows of the problem that are scored.
        """
        molecules = self._unknown_first(molecules_of(rows))
        known = self.indexer(molecules)
        is_unknown = known == np.array(self.unknown_index)
        probabilities = np.empty((len(rows), len(self.ids)))
        selected = []
        for left_out in ((False, False), (True, False), (False, True), (True, True)):
            index = np.flatnonzero((is_unknown == left_out).all(axis=1))
            if not len(index):
                continue
            fit = self._select(left_out)
            pairs = self._weight_rows(known[index], [molecules[i] for i in index], left_out)
            weights = self._weights(fit.penalties, left_out, for_unknown=True)
            scores = self._expected(known[index], left_out)
            for column, matrix in enumerate(self._residuals(left_out)):
                scores[:, column] += weights.second_step(weights.first_step(matrix), pairs)
            probabilities[index] = fit.probabilities(scores)
            penalties = " and ".join(f"{penalty:g}" for penalty in fit.penalties)
            selected.append(f"{_describe(left_out)}: penalties {penalties}")
        return label_answers(self.task, rows, self.ids.tolist(), probabilities), "; ".join(selected)

    def _unknown_first(self, pairs: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Put an unknown molecule before a known one if the order has no meaning."""
        if not self.indexer.is_shared:
            return pairs
        is_unknown = self.indexer(pairs) == np.array(self.unknown_index)
        swapped = ~is_unknown[:, 0] & is_unknown[:, 1]
        return [pair[::-1] if swap else pair for pair, swap in zip(pairs, swapped, strict=True)]

    def _select(self, left_out: tuple[bool, bool]) -> _Fit:
        """Select penalties and fit the probabilities for known or unknown molecules."""
        is_known = not any(left_out)
        selection = self.valid_selection if is_known else self.train_selection
        if len(np.unique(selection.labels)) < 2:
            return _Fit(_DEFAULT_PENALTIES, None, 1.0)
        expected = self._expected(selection.pairs, left_out)
        residuals = list(self._residuals(left_out))
        choices = penalties_of(self.task)
        # Predictions of a symmetric matrix are symmetric if both roles have the same weights.
        is_equal = self.indexer.is_shared and left_out[0] == left_out[1]
        best: tuple[float, tuple[float, float], Array] | None = None
        for penalty in choices:
            others = [penalty] if is_equal else choices
            weights = [
                self._weights((penalty, other), left_out, for_unknown=False) for other in others
            ]
            scores = np.stack([expected] * len(others))
            for column, matrix in enumerate(residuals):
                rows = weights[0].first_step(matrix)
                for own, table in zip(weights, scores, strict=True):
                    table[:, column] += self._second_step(own, rows, matrix, selection, left_out)
            for other, table in zip(others, scores, strict=True):
                quality = _quality(table, selection.labels)
                if best is None or quality > best[0]:
                    best = quality, (penalty, other), table
        assert best is not None
        return _fit_probabilities(best[1], best[2], selection.labels)

    def _second_step(
        self,
        weights: PairWeights,
        rows: Array,
        residuals: Any,
        selection: _Selection,
        left_out: tuple[bool, bool],
    ) -> Array:
        """Predict pairs of known molecules, with some of them left out."""
        if any(left_out) and self.indexer.is_shared:
            return weights.second_step_left_out(
                rows, residuals, selection.pairs, both=all(left_out)
            )
        return weights.second_step(rows, selection.pairs)

    def _expected(self, pairs: Index, left_out: tuple[bool, bool]) -> Array:
        """Return what rates say, ``[pairs, scores]``, as if some molecules were unknown."""
        masked = np.where(left_out, self.unknown_index, pairs)
        return combine_rates(self.prior, self.rates, masked)[:, self.scored_labels]

    def _residuals(self, left_out: tuple[bool, bool]) -> Iterator[Any]:
        """Yield the matrix of what rates do not explain, for each score."""
        shape = (self.unknown_index[0], self.unknown_index[1])
        expected = self._expected(self.pairs, left_out)
        for column, label in enumerate(self.scored_labels):
            values = (self.labels == label) - expected[:, column]
            pairs = self.pairs
            if self.indexer.is_shared:
                # Either molecule may be the one whose rate is unknown.
                swapped = self._expected(pairs[:, ::-1], left_out)[:, column]
                values = np.concatenate([values, (self.labels == label) - swapped])
                pairs = np.concatenate([pairs, pairs[:, ::-1]])
            yield residual_matrix(values, pairs, shape)

    def _weights(
        self, penalties: tuple[float, float], left_out: tuple[bool, bool], *, for_unknown: bool
    ) -> PairWeights:
        """Return the weights of both roles.

        Args:
            penalties: Penalties of both roles.
            left_out: Whether the molecules of each role count as unknown.
            for_unknown: Whether those are the molecules to predict, or known ones left out.
        """

        def weights(role: int) -> Array:
            kernel, penalty = self.kernels[role], penalties[role]
            if not left_out[role]:
                return kernel.smoothing(penalty)
            return kernel.unknown(penalty) if for_unknown else kernel.left_out(penalty)

        return PairWeights(weights(0), weights(1))

    def _select_known(self, rows: Sequence[Row], generator: np.random.Generator) -> _Selection:
        """Return the pairs of known molecules among valid rows, with known labels."""
        columns = {label: column for column, label in enumerate(self.ids.tolist())}
        kept = [row for row in rows if row.target in columns]
        pairs = self.indexer(molecules_of(kept))
        is_known = (pairs != np.array(self.unknown_index)).all(axis=1)
        labels = np.array([columns[row.target] for row in kept], dtype=np.int64)
        drawn = generator.permutation(np.flatnonzero(is_known))[:MAX_SELECTION_PAIRS]
        return _Selection(pairs[drawn], labels[drawn])

    def _unknown_molecules(self, rows: Sequence[Row]) -> list[dict[str, int]]:
        """Return the indices of unknown molecules of each role."""
        unknown = []
        for role in (0, 1):
            known = set(self.indexer.molecules(role))
            roles = (0, 1) if self.indexer.is_shared else (role,)
            names = dict.fromkeys(row.molecules[r] for row in rows for r in roles)
            unknown.append({smiles: i for i, smiles in enumerate(names.keys() - known)})
        return unknown

    def _kernels(self) -> list[RidgeKernel]:
        kernels = []
        for role in (0,) if self.indexer.is_shared else (0, 1):
            known = self.indexer.molecules(role)
            similarity = tanimoto_kernel([*known, *self.unknown[role]], known)
            kernels.append(RidgeKernel(similarity[: len(known)], similarity[len(known) :]))
        return kernels * 2 if self.indexer.is_shared else kernels

    def _weight_rows(
        self, known: Index, pairs: Sequence[tuple[str, ...]], left_out: tuple[bool, bool]
    ) -> Index:
        """Return the rows of the weights of both molecules, ``[pairs, 2]``."""
        rows = known.copy()
        for role in (0, 1):
            if left_out[role]:
                rows[:, role] = [self.unknown[role][pair[role]] for pair in pairs]
        return rows


def _describe(left_out: tuple[bool, bool]) -> str:
    names = {(False, False): "both known", (True, True): "both unknown"}
    return names.get(left_out, "first unknown" if left_out[0] else "second unknown")


def _quality(scores: Array, labels: Index) -> float:
    """Return AUROC for one score per pair, otherwise accuracy."""
    if scores.shape[1] == 1:
        return float(roc_auc_score(labels, scores[:, 0]))
    return float((scores.argmax(axis=1) == labels).mean())


def _fit_probabilities(penalties: tuple[float, float], scores: Array, labels: Index) -> _Fit:
    if scores.shape[1] == 1:
        return _Fit(penalties, LogisticRegression(C=1e3).fit(scores, labels), 1.0)

    def log_loss(temperature: float) -> float:
        own = softmax(temperature * scores, axis=1)[np.arange(len(labels)), labels]
        return float(-np.log(own.clip(min=1e-9)).mean())

    return _Fit(penalties, None, min(TEMPERATURES, key=log_loss))


def _num_labels(task: Task) -> int:
    return 0 if isinstance(task.kind, Number) else len(task.kind.labels)  # type: ignore[union-attr]


def _solve_numbers(problem: Problem) -> tuple[Answers, str, float]:
    """Answer the scored rows with numbers; return the penalty and the time when it was trained."""
    kernels = [_RoleKernel(problem, role) for role in (0, 1)]
    values = targets(problem.train)
    mean, deviation = float(values.mean()), float(values.std()) or 1.0
    scaled = (values - mean) / deviation
    gram = _pair_kernel(kernels, problem.train, problem.train)
    valid = _pair_kernel(kernels, problem.valid, problem.train)
    valid_targets = (targets(problem.valid) - mean) / deviation
    best: tuple[float, float, Array] | None = None
    for penalty in PAIR_PENALTIES:
        matrix = gram.copy()
        matrix.flat[:: len(matrix) + 1] += penalty
        factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        weights = cho_solve(factor, scaled, check_finite=False)
        error = float(np.square(valid @ weights - valid_targets).sum())
        if best is None or error < best[0]:
            best = error, penalty, weights
    assert best is not None
    trained = cpu_seconds()
    rows = problem.test_rows
    predicted = [
        _pair_kernel(kernels, rows[start : start + _BLOCK], problem.train) @ best[2]
        for start in range(0, len(rows), _BLOCK)
    ]
    answers = number_answers(problem.task, rows, np.concatenate(predicted) * deviation + mean)
    return answers, f"penalty {best[1]:g}", trained


class _RoleKernel:
    """Similarity of all molecules of a role to those of train rows."""

    def __init__(self, problem: Problem, role: int) -> None:
        def molecules(*parts: Sequence[Row]) -> list[str]:
            return list(dict.fromkeys(row.molecules[role] for rows in parts for row in rows))

        known = molecules(problem.train)
        every = molecules(problem.train, problem.valid, problem.test_rows)
        self.role = role
        self._columns = {smiles: i for i, smiles in enumerate(known)}
        self._rows = {smiles: i for i, smiles in enumerate(every)}
        self._kernel = tanimoto_kernel(every, known)

    def between(self, rows: Sequence[Row], train: Sequence[Row]) -> npt.NDArray[np.float64]:
        """Return the similarity of the molecules of rows to those of train rows."""
        first = [self._rows[row.molecules[self.role]] for row in rows]
        second = [self._columns[row.molecules[self.role]] for row in train]
        return self._kernel[np.ix_(first, second)]


def _pair_kernel(
    kernels: Sequence[_RoleKernel], rows: Sequence[Row], train: Sequence[Row]
) -> Array:
    product = kernels[0].between(rows, train)
    product += 1
    other = kernels[1].between(rows, train)
    other += 1
    product *= other
    return product
