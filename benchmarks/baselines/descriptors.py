"""Gradient boosting (LightGBM) on RDKit's 2D descriptors of both molecules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from baselines import boosting
from baselines.boosting import BoostingSettings, SmilesPair
from baselines.molecule_features import Features, FeatureStore
from baselines.problem import Problem, Solution
from moltc_vllm.tasks import Number, Task

# Many descriptors are correlated, so that trees of different features are both faster and better.
NUMBERS = BoostingSettings(trees=1000, leaves=(31,), learning_rate=0.05, feature_fraction=0.3)
TWO_CLASSES = BoostingSettings(trees=600, leaves=(63,), learning_rate=0.1, feature_fraction=0.3)
MANY_CLASSES = BoostingSettings(
    trees=300, leaves=(31,), min_hessian=1.0, l2=1.0, patience=30, feature_fraction=0.1
)


def settings_of(task: Task, trees: int | None = None) -> dict[str, Any]:
    """Return the settings of a task's features and boosting.

    Args:
        task: Task to train.
        trees: Number of trees; default: the task's own.
    """
    return {"features": ["rdkit"], **asdict(_settings(task, trees))}


def solve(
    problem: Problem, store: FeatureStore, *, seed: int, threads: int, trees: int | None = None
) -> Solution:
    """Train and predict; see `boosting.solve`.

    The CPU seconds of the descriptors count as training, whether they were computed now or earlier.

    Args:
        problem: Rows to train on, to select with, and to predict.
        store: Descriptors that have been computed before.
        seed: Seed of the training.
        threads: Number of threads.
        trees: Number of trees; default: the task's own.

    Raises:
        ValueError: If RDKit cannot read a molecule.
    """
    molecules = problem.molecules
    features = store.read("rdkit", molecules)
    rows = {smiles: index for index, smiles in enumerate(molecules)}

    def featurize(pairs: Sequence[SmilesPair]) -> Features:
        index = np.array([[rows[smiles] for smiles in pair] for pair in pairs])
        return features.values[index].reshape(len(pairs), -1)

    settings = _settings(problem.task, trees)
    solution = boosting.solve(problem, settings, featurize, seed=seed, threads=threads)
    return solution._replace(train_cpu_s=(solution.train_cpu_s or 0.0) + features.cpu_s)


def _settings(task: Task, trees: int | None) -> BoostingSettings:
    if isinstance(task.kind, Number):
        settings = NUMBERS
    else:
        settings = MANY_CLASSES if boosting.has_many_classes(task) else TWO_CLASSES
    return replace(settings, trees=trees) if trees else settings
