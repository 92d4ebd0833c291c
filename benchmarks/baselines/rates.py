"""What is known of each molecule by itself, without chemistry.

For labels: how often each label occurs among the train pairs of a molecule, e.g. how often a drug
interacts. The probabilities of both molecules are multiplied and divided by the overall frequency
of the label. For numbers: the sum of the overall mean and an effect of each molecule. Rates and
effects of molecules with few pairs are drawn towards those of all pairs; a molecule without a train
pair has exactly those of all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from baselines.answers import Array, label_answers, number_answers, targets
from baselines.problem import Problem, Solution, cpu_seconds
from moltc_vllm.data import Row
from moltc_vllm.tasks import Number, Task

PRIOR_PAIRS = 2.0
"""Number of average pairs that are added to those of each molecule."""

SWEEPS = 50
"""Number of rounds in which the effects of numbers are fitted one role after the other."""

Index = npt.NDArray[np.int64]


def settings_of(task: Task) -> dict[str, Any]:
    """Return the settings with which a task is trained."""
    sweeps = {"sweeps": SWEEPS} if isinstance(task.kind, Number) else {}
    return {"prior_pairs": PRIOR_PAIRS, **sweeps}


def solve(problem: Problem) -> Solution:
    """Estimate rates or effects from the train rows and predict the scored rows.

    Args:
        problem: Rows to train on and to predict; the valid rows are not used.
    """
    begin, rows = cpu_seconds(), problem.test_rows
    indexer = MoleculeIndexer(problem.train, shared=problem.task.symmetric)
    train, scored = indexer(molecules_of(problem.train)), indexer(molecules_of(rows))
    train_targets = targets(problem.train)
    if isinstance(problem.task.kind, Number):
        mean, effects = fit_effects(train, train_targets, indexer.counts)
        trained = cpu_seconds()
        values = mean + sum(effect[index] for effect, index in zip(effects, scored.T, strict=True))
        answers = number_answers(problem.task, rows, values)
    else:
        ids, labels = np.unique(train_targets, return_inverse=True)
        prior, rates = fit_rates(train, labels, len(ids), indexer)
        trained = cpu_seconds()
        answers = label_answers(problem.task, rows, ids, combine_rates(prior, rates, scored))
    return Solution(answers, trained - begin, cpu_seconds() - trained, len(problem.train), 0)


class MoleculeIndexer:
    """Indices of the molecules of each role; the last index of a role is that of unknown ones.

    Args:
        rows: Rows whose molecules are known.
        shared: Whether both roles have the same molecules, because their order has no meaning.

    Attributes:
        counts: Number of indices of each role.
        is_shared: Whether both roles have the same molecules.
    """

    def __init__(self, rows: Sequence[Row], *, shared: bool) -> None:
        by_role = [dict.fromkeys(row.molecules[role] for row in rows) for role in (0, 1)]
        if shared:
            by_role = [by_role[0] | by_role[1]] * 2
        self._indices = [{smiles: i for i, smiles in enumerate(known)} for known in by_role]
        self.is_shared = shared
        self.counts = [len(known) + 1 for known in by_role]

    def __call__(self, pairs: Sequence[tuple[str, ...]]) -> Index:
        """Return the indices of both molecules of pairs, ``[pairs, 2]``."""
        first, second = self._indices
        unknown = len(first), len(second)
        indices = [(first.get(a, unknown[0]), second.get(b, unknown[1])) for a, b in pairs]
        return np.array(indices, dtype=np.int64).reshape(len(pairs), 2)

    def molecules(self, role: int) -> list[str]:
        """Return the SMILES of the known molecules of a role."""
        return list(self._indices[role])


def molecules_of(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return the SMILES of both molecules of each row."""
    return [row.molecules for row in rows]


def fit_rates(
    pairs: Index, labels: Index, num_labels: int, indexer: MoleculeIndexer
) -> tuple[Array, list[Array]]:
    """Return the frequencies of labels, overall and for each molecule of each role.

    Args:
        pairs: Molecules of the train rows, ``[rows, 2]``.
        labels: Labels of the train rows, ``[rows]``.
        num_labels: Number of labels.
        indexer: Indexer of the molecules.

    Returns:
        Frequencies ``[labels]``, and ``[molecules, labels]`` for each role.
    """
    prior = (np.bincount(labels, minlength=num_labels) + 0.5) / (len(labels) + 0.5 * num_labels)
    counts = []
    for role, size in enumerate(indexer.counts):
        table = np.zeros((size, num_labels))
        np.add.at(table, (pairs[:, role], labels), 1)
        counts.append(table)
    if indexer.is_shared:
        counts = [counts[0] + counts[1]] * 2
    rates = [
        (table + PRIOR_PAIRS * prior) / (table.sum(axis=1, keepdims=True) + PRIOR_PAIRS)
        for table in counts
    ]
    return prior, rates


def combine_rates(prior: Array, rates: Sequence[Array], pairs: Index) -> Array:
    """Return the probabilities of labels, ``[pairs, labels]``."""
    logits = sum(np.log(rate[index]) for rate, index in zip(rates, pairs.T, strict=True))
    logits = logits - np.log(prior)
    probabilities: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def fit_effects(pairs: Index, values: Array, counts: Sequence[int]) -> tuple[float, list[Array]]:
    """Fit an effect of each molecule, drawn towards zero, by turns of the roles.

    Args:
        pairs: Molecules of the train rows, ``[rows, 2]``.
        values: Targets of the train rows, ``[rows]``.
        counts: Number of indices of each role.

    Returns:
        Mean, and the effects ``[molecules]`` of each role.
    """
    mean = float(values.mean())
    effects = [np.zeros(count) for count in counts]
    for _ in range(SWEEPS):
        for role in (0, 1):
            other = effects[1 - role][pairs[:, 1 - role]]
            sums = np.bincount(pairs[:, role], values - mean - other, minlength=counts[role])
            rows = np.bincount(pairs[:, role], minlength=counts[role])
            effects[role] = sums / (rows + PRIOR_PAIRS)
    return mean, effects
