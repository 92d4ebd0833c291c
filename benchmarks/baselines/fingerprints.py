"""Morgan fingerprints of both molecules and gradient boosting (LightGBM).

A pair is the counts of the circular fragments of its two molecules, side by side. Where the order
of the molecules means nothing, both orders are learned from and the answers to both are averaged.
How large the trees are, the valid rows choose; they are not learned from.
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
from baselines.problem import Answers, Problem, Solved, cpu_seconds
from moltc_vllm.chem.rdkit_log import QuietLog
from moltc_vllm.data import Row
from moltc_vllm.tasks import Choice, Number, Task

RADIUS, BITS = 2, 1024

Pair = tuple[str, ...]
Model = LGBMClassifier | LGBMRegressor


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the boosting.

    Attributes:
        trees: Of each class, if there are more than two.
        leaves: Of a tree; the best ones on the valid rows are taken.
        learning_rate: Of a tree.
        min_hessian: Lowest sum of second derivatives in a leaf.
        l2: Penalty on the value of a leaf.
        patience: Trees without a gain on the valid rows before it ends; 0: all are grown.
    """

    trees: int = 600
    leaves: tuple[int, ...] = (31, 63, 127)
    learning_rate: float = 0.1
    min_hessian: float = 1e-3
    l2: float = 0.0
    patience: int = 0


# With LightGBM's own 1e-3 and no penalty, 86 classes of which some have a handful of rows diverge:
# 31 % of the valid rows are right after 140 trees of each class, with these 91 % after 100.
MANY_CLASSES = Settings(leaves=(31,), min_hessian=1.0, l2=1.0, patience=30)


def settings_of(task: Task, trees: int | None = None) -> dict[str, Any]:
    """What a task is learned with, and the fingerprints."""
    chosen = asdict(_settings(task))
    return {"radius": RADIUS, "bits": BITS, **chosen, **({"trees": trees} if trees else {})}


def solve(problem: Problem, *, seed: int, threads: int, trees: int | None = None) -> Solved:
    """Learn with each size of trees, choose, and answer.

    Raises:
        ValueError: If RDKit cannot read a molecule.
    """
    begin = cpu_seconds()
    settings, task = _settings(problem.task), problem.task
    train = Table.of(problem.train, both_orders=task.symmetric)
    valid = Table.of(problem.valid)
    best: tuple[float, int, Model] | None = None
    for leaves in settings.leaves:
        model = _fit(task, settings, leaves, train, valid, seed, threads, trees)
        loss = _loss(task, model, valid)
        if best is None or loss < best[0]:
            best = loss, leaves, model
    assert best is not None
    _, leaves, model = best
    trained = cpu_seconds()
    answers = _answers(task, model, problem.asked)
    chosen = f"{leaves} leaves"
    if settings.patience:
        chosen += f", {model.best_iteration_} trees"
    end = cpu_seconds()
    rows = len(problem.train), len(problem.valid)
    return Solved(answers, trained - begin, end - trained, *rows, chosen)


@dataclass(frozen=True, slots=True)
class Table:
    """Fingerprints ``[rows, 2 * BITS]`` and targets ``[rows]``."""

    features: csr_matrix
    targets: Any

    @classmethod
    def of(cls, rows: Sequence[Row], *, both_orders: bool = False) -> Table:
        """Of rows as they are, and once more in the other order if that is wanted."""
        pairs = [row.molecules for row in rows]
        known = targets(rows)
        if both_orders:
            pairs += [pair[::-1] for pair in pairs]
            known = np.concatenate([known, known])
        return cls(fingerprints(pairs), known)


def fingerprints(pairs: Iterable[Pair]) -> csr_matrix:
    """Counts of the fragments of both molecules, ``[pairs, 2 * BITS]``.

    Raises:
        ValueError: If RDKit cannot read a molecule.
    """
    generator = GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    known: dict[str, tuple[list[int], list[int]]] = {}
    columns, counts, ends = [], [], [0]
    for pair in pairs:
        for place, smiles in enumerate(pair):
            if smiles not in known:
                with QuietLog():
                    molecule = Chem.MolFromSmiles(smiles)
                if molecule is None:
                    raise ValueError(f"RDKit cannot read {smiles!r}")
                found = generator.GetCountFingerprint(molecule).GetNonzeroElements()
                known[smiles] = list(found), list(found.values())
            bits, times = known[smiles]
            columns += [place * BITS + bit for bit in bits]
            counts += times
        ends.append(len(columns))
    cells = np.array(counts, dtype=np.float32)
    return csr_matrix((cells, columns, ends), shape=(len(ends) - 1, 2 * BITS))


def _settings(task: Task) -> Settings:
    many = isinstance(task.kind, Choice) and len(task.kind.labels) > 2
    return MANY_CLASSES if many else Settings()


def _fit(
    task: Task,
    settings: Settings,
    leaves: int,
    train: Table,
    valid: Table,
    seed: int,
    threads: int,
    trees: int | None,
) -> Model:
    kind = LGBMRegressor if isinstance(task.kind, Number) else LGBMClassifier
    model = kind(
        n_estimators=trees or settings.trees,
        num_leaves=leaves,
        learning_rate=settings.learning_rate,
        min_child_weight=settings.min_hessian,
        reg_lambda=settings.l2,
        random_state=seed,
        n_jobs=threads,
        verbose=-1,
    )
    if not settings.patience:
        return model.fit(train.features, train.targets)
    # A label that was never learned would be an error in the valid rows.
    learned = np.isin(valid.targets, train.targets)
    return model.fit(
        train.features,
        train.targets,
        eval_set=[(valid.features[learned], valid.targets[learned])],
        callbacks=[early_stopping(settings.patience, verbose=False)],
    )


def _loss(task: Task, model: Model, valid: Table) -> float:
    if isinstance(task.kind, Number):
        return float(mean_squared_error(valid.targets, model.predict(valid.features)))
    learned = np.isin(valid.targets, model.classes_)
    probabilities = model.predict_proba(valid.features[learned])
    return float(log_loss(valid.targets[learned], probabilities, labels=model.classes_))


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
