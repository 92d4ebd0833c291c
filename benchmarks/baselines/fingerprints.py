"""Gradient boosting (LightGBM) on Morgan fingerprints of both molecules.

The features of a pair are the counts of the circular fragments of its two molecules, side by side.
For tasks in which the order of the molecules has no meaning, the model is trained on both orders,
and the predictions for both orders are averaged. The valid rows select the size of the trees; they
are not trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from lightgbm import LGBMClassifier, LGBMRegressor, early_stopping
from rdkit import Chem
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
from scipy.sparse import csr_matrix
from sklearn.metrics import log_loss, mean_squared_error

from baselines.answers import Array, label_answers, number_answers, targets
from baselines.problem import Answers, Problem, Solution, cpu_seconds
from moltc_vllm.chem.rdkit_log import QuietLog
from moltc_vllm.data import Row
from moltc_vllm.tasks import Choice, Number, Task

RADIUS, BITS = 2, 1024

SmilesPair = tuple[str, ...]
Model = LGBMClassifier | LGBMRegressor


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
    """

    trees: int = 600
    leaves: tuple[int, ...] = (31, 63, 127)
    learning_rate: float = 0.1
    min_hessian: float = 1e-3
    l2: float = 0.0
    patience: int = 0


# LightGBM's defaults (1e-3 and no penalty) diverge with 86 classes of which some have only a few
# rows: after 140 trees per class, the accuracy on the valid rows is 31 %. With these settings it is
# 91 % after 100.
MANY_CLASSES = BoostingSettings(leaves=(31,), min_hessian=1.0, l2=1.0, patience=30)


def settings_of(task: Task, trees: int | None = None) -> dict[str, Any]:
    """Return the settings of a task's fingerprints and boosting.

    Args:
        task: Task to train.
        trees: Number of trees; default: the task's own.
    """
    settings = asdict(_settings(task))
    return {"radius": RADIUS, "bits": BITS, **settings, **({"trees": trees} if trees else {})}


def solve(problem: Problem, *, seed: int, threads: int, trees: int | None = None) -> Solution:
    """Train a model for each size of trees, select the best one, and predict the scored rows.

    Args:
        problem: Rows to train on, to select with, and to predict.
        seed: Seed of the training.
        threads: Number of threads.
        trees: Number of trees; default: the task's own.

    Raises:
        ValueError: If RDKit cannot read a molecule.
    """
    begin = cpu_seconds()
    settings, task = _settings(problem.task), problem.task
    train = FeatureTable.from_rows(problem.train, both_orders=task.symmetric)
    valid = FeatureTable.from_rows(problem.valid)
    best: tuple[float, int, Model] | None = None
    for leaves in settings.leaves:
        model = _new_model(task, settings, leaves, seed, threads, trees)
        _fit(model, settings, train, valid)
        loss = _valid_loss(task, model, valid)
        if best is None or loss < best[0]:
            best = loss, leaves, model
    assert best is not None
    _, leaves, model = best
    train_end = cpu_seconds()
    answers = _answers(task, model, problem.test_rows)
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
        features: Counts of fragments, ``[rows, 2 * BITS]``.
        targets: Numbers or label ids, ``[rows]``.
    """

    features: csr_matrix
    targets: Any

    @classmethod
    def from_rows(cls, rows: Sequence[Row], *, both_orders: bool = False) -> FeatureTable:
        """Compute the features of rows.

        Args:
            rows: Rows with targets.
            both_orders: Whether to append all rows with the molecules in the other order.
        """
        pairs = [row.molecules for row in rows]
        row_targets = targets(rows)
        if both_orders:
            pairs += [pair[::-1] for pair in pairs]
            row_targets = np.concatenate([row_targets, row_targets])
        return cls(fingerprints(pairs), row_targets)


def fingerprints(pairs: Iterable[SmilesPair]) -> csr_matrix:
    """Count the circular fragments of both molecules, ``[pairs, 2 * BITS]``.

    Raises:
        ValueError: If RDKit cannot read a molecule.
    """
    generator = GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    cache: dict[str, tuple[list[int], list[int]]] = {}
    columns, values, row_ends = [], [], [0]
    for pair in pairs:
        for role, smiles in enumerate(pair):
            if smiles not in cache:
                with QuietLog():
                    molecule = Chem.MolFromSmiles(smiles)
                if molecule is None:
                    raise ValueError(f"RDKit cannot read {smiles!r}")
                nonzero = generator.GetCountFingerprint(molecule).GetNonzeroElements()
                cache[smiles] = list(nonzero), list(nonzero.values())
            bits, counts = cache[smiles]
            columns += [role * BITS + bit for bit in bits]
            values += counts
        row_ends.append(len(columns))
    cells = np.array(values, dtype=np.float32)
    return csr_matrix((cells, columns, row_ends), shape=(len(row_ends) - 1, 2 * BITS))


def _settings(task: Task) -> BoostingSettings:
    has_many_classes = isinstance(task.kind, Choice) and len(task.kind.labels) > 2
    return MANY_CLASSES if has_many_classes else BoostingSettings()


def _new_model(
    task: Task,
    settings: BoostingSettings,
    leaves: int,
    seed: int,
    threads: int,
    trees: int | None,
) -> Model:
    model_class = LGBMRegressor if isinstance(task.kind, Number) else LGBMClassifier
    return model_class(
        n_estimators=trees or settings.trees,
        num_leaves=leaves,
        learning_rate=settings.learning_rate,
        min_child_weight=settings.min_hessian,
        reg_lambda=settings.l2,
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


def _answers(task: Task, model: Model, rows: Sequence[Row]) -> Answers:
    orders = [[row.molecules for row in rows]]
    if task.symmetric:
        orders.append([row.molecules[::-1] for row in rows])
    tables = [fingerprints(pairs) for pairs in orders]
    if isinstance(task.kind, Number):
        values: Array = np.mean([model.predict(table) for table in tables], axis=0)
        return number_answers(task, rows, values)
    probabilities: Array = np.mean([model.predict_proba(table) for table in tables], axis=0)
    return label_answers(task, rows, model.classes_, probabilities)
