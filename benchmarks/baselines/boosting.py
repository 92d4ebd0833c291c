"""Gradient boosting (LightGBM) on features of both molecules, side by side.

For tasks in which the order of the molecules has no meaning, the model is trained on both orders,
and the predictions for both orders are averaged. The valid rows select the size of the trees; they
are not trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lightgbm import LGBMClassifier, LGBMRegressor, early_stopping
from sklearn.metrics import log_loss, mean_squared_error

from baselines.answers import Array, label_answers, number_answers, targets
from baselines.problem import Answers, Problem, Solution, cpu_seconds
from moltc_vllm.data import Row
from moltc_vllm.tasks import Choice, Number, Task

SmilesPair = tuple[str, ...]
Model = LGBMClassifier | LGBMRegressor
Featurizer = Callable[[Sequence[SmilesPair]], Any]
"""Function of pairs that returns their features, ``[pairs, width]``, dense or sparse."""


@dataclass(frozen=True, slots=True)
class BoostingSettings:
    """Settings of the boosting.

    Attributes:
        trees: Number of trees, per class if there are more than two classes.
        leaves: Numbers of leaves per tree to choose from by the loss on the valid rows.
        learning_rate: Weight of each tree.
        min_hessian: Smallest sum of second derivatives in a leaf.
        l2: Penalty on the values of leaves.
        patience: Number of trees without a gain on the valid rows after which the training stops;
            0 trains all trees.
        feature_fraction: Fraction of the features that each tree may use.
    """

    trees: int = 600
    leaves: tuple[int, ...] = (31, 63, 127)
    learning_rate: float = 0.1
    min_hessian: float = 1e-3
    l2: float = 0.0
    patience: int = 0
    feature_fraction: float = 1.0


def has_many_classes(task: Task) -> bool:
    """Return whether a task has more than two labels."""
    return isinstance(task.kind, Choice) and len(task.kind.labels) > 2


def solve(
    problem: Problem,
    settings: BoostingSettings,
    featurize: Featurizer,
    *,
    seed: int,
    threads: int,
) -> Solution:
    """Train a model for each size of trees, select the best one, and predict the scored rows.

    Args:
        problem: Rows to train on, to select with, and to predict.
        settings: Settings of the boosting.
        featurize: Function that computes the features of pairs.
        seed: Seed of the training.
        threads: Number of threads.

    Raises:
        ValueError: If RDKit cannot read a molecule.
    """
    begin, task = cpu_seconds(), problem.task
    train = FeatureTable.from_rows(problem.train, featurize, both_orders=task.symmetric)
    valid = FeatureTable.from_rows(problem.valid, featurize)
    best: tuple[float, int, Model] | None = None
    for leaves in settings.leaves:
        model = _new_model(task, settings, leaves, seed, threads)
        _fit(model, settings, train, valid)
        loss = _valid_loss(task, model, valid) if len(settings.leaves) > 1 else 0.0
        if best is None or loss < best[0]:
            best = loss, leaves, model
    assert best is not None
    _, leaves, model = best
    train_end = cpu_seconds()
    answers = _answers(task, model, problem.test_rows, featurize)
    selected = f"{leaves} leaves"
    if settings.patience:
        selected += f", {model.best_iteration_} trees"
    end = cpu_seconds()
    counts = len(problem.train), len(problem.valid)
    return Solution(answers, train_end - begin, end - train_end, *counts, selected)


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Features and targets of rows.

    Attributes:
        features: Features, ``[rows, width]``.
        targets: Numbers or label ids, ``[rows]``.
    """

    features: Any
    targets: Any

    @classmethod
    def from_rows(
        cls, rows: Sequence[Row], featurize: Featurizer, *, both_orders: bool = False
    ) -> FeatureTable:
        """Compute the features of rows.

        Args:
            rows: Rows with targets.
            featurize: Function that computes the features of pairs.
            both_orders: Whether to append all rows with the molecules in the other order.
        """
        pairs = [row.molecules for row in rows]
        row_targets = targets(rows)
        if both_orders:
            pairs += [pair[::-1] for pair in pairs]
            row_targets = np.concatenate([row_targets, row_targets])
        return cls(featurize(pairs), row_targets)


def _new_model(
    task: Task, settings: BoostingSettings, leaves: int, seed: int, threads: int
) -> Model:
    model_class = LGBMRegressor if isinstance(task.kind, Number) else LGBMClassifier
    return model_class(
        n_estimators=settings.trees,
        num_leaves=leaves,
        learning_rate=settings.learning_rate,
        min_child_weight=settings.min_hessian,
        reg_lambda=settings.l2,
        colsample_bytree=settings.feature_fraction,
        random_state=seed,
        n_jobs=threads,
        verbose=-1,
    )


def _fit(
    model: Model, settings: BoostingSettings, train: FeatureTable, valid: FeatureTable
) -> None:
    if not settings.patience:
        model.fit(train.features, train.targets)
        return
    # LightGBM fails on valid rows with a label that no train row has.
    is_known = np.isin(valid.targets, train.targets)
    model.fit(
        train.features,
        train.targets,
        eval_set=[(valid.features[is_known], valid.targets[is_known])],
        callbacks=[early_stopping(settings.patience, verbose=False)],
    )


def _valid_loss(task: Task, model: Model, valid: FeatureTable) -> float:
    if isinstance(task.kind, Number):
        return float(mean_squared_error(valid.targets, model.predict(valid.features)))
    is_known = np.isin(valid.targets, model.classes_)
    probabilities = model.predict_proba(valid.features[is_known])
    return float(log_loss(valid.targets[is_known], probabilities, labels=model.classes_))


def _answers(task: Task, model: Model, rows: Sequence[Row], featurize: Featurizer) -> Answers:
    orders = [[row.molecules for row in rows]]
    if task.symmetric:
        orders.append([row.molecules[::-1] for row in rows])
    tables = [featurize(pairs) for pairs in orders]
    if isinstance(task.kind, Number):
        values: Array = np.mean([model.predict(table) for table in tables], axis=0)
        return number_answers(task, rows, values)
    probabilities: Array = np.mean([model.predict_proba(table) for table in tables], axis=0)
    return label_answers(task, rows, model.classes_, probabilities)
