"""chemprop's model of molecule pairs: a message-passing network per molecule and a joint head.

chemprop runs in another interpreter, because it needs another version of RDKit than this project
(chemprop 2.3.1 installs 2026.3.6), and canonical SMILES depend on that version:

    python -m venv ../chemprop && ../chemprop/bin/pip install 'chemprop>=2.3,<2.4'

All settings are chemprop's defaults unless fewer epochs are given; it keeps the epoch with the
lowest loss on the valid rows. The targets of scored rows are never passed to it. For tasks in which
the order of the molecules has no meaning, both molecules share one network, which is trained on
both orders, and the predictions for both orders are averaged.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from baselines.answers import Array, label_answers, number_answers, targets
from baselines.problem import Answers, Problem, Solution, cpu_seconds
from moltc_vllm.data import Row
from moltc_vllm.tasks import Number, Task

EPOCHS = 50

_MAIN = "from chemprop.cli.main import main; main()"
_SMILES_COLUMNS, _TARGET_COLUMN = ("smiles_1", "smiles_2"), "target"
_MAX_ERROR_CHARACTERS = 2000


class ChempropError(RuntimeError):
    """chemprop could not be started or failed; the message has the end of its output."""


def settings_of(task: Task, epochs: int) -> dict[str, Any]:
    """Return the settings with which a task is trained."""
    return {"epochs": epochs, "mpn_shared": task.symmetric}


def solve(problem: Problem, *, python: str, seed: int, threads: int, epochs: int) -> Solution:
    """Train a model and predict the scored rows, in a temporary folder.

    Args:
        problem: Rows to train on, to select the epoch with, and to predict.
        python: Interpreter with chemprop.
        seed: Seed of the training.
        threads: Number of threads.
        epochs: Number of epochs.

    Raises:
        ChempropError: If chemprop cannot be started, fails, or returns unexpected rows.
    """
    task, rows = problem.task, problem.test_rows
    ids = [] if isinstance(task.kind, Number) else sorted(set(targets(problem.train).tolist()))
    with tempfile.TemporaryDirectory() as name:
        chemprop, begin = _Chemprop(python, Path(name), threads), cpu_seconds()
        _train(chemprop, problem, ids, seed, epochs)
        train_end = cpu_seconds()
        orders = [[row.molecules for row in rows]]
        if task.symmetric:
            orders.append([row.molecules[::-1] for row in rows])
        predictions = [_predict(chemprop, pairs) for pairs in orders]
        answers = _answers(task, rows, ids, np.mean(predictions, axis=0))
        end = cpu_seconds()
    counts = len(problem.train), len(problem.valid)
    return Solution(answers, train_end - begin, end - train_end, *counts)


def versions(python: str) -> dict[str, str]:
    """Return the versions of the packages in chemprop's interpreter that affect the results."""
    names = ("chemprop", "rdkit", "torch", "lightning")
    code = "import importlib.metadata as m, json, sys; "
    code += f"json.dump({{name: m.version(name) for name in {names}}}, sys.stdout)"
    run = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    result: dict[str, str] = json.loads(run.stdout)
    return result


@dataclass(frozen=True, slots=True)
class _Chemprop:
    """chemprop's command line in another interpreter.

    Attributes:
        python: Interpreter with chemprop.
        folder: Folder for the model and the files.
        threads: Number of threads.
    """

    python: str
    folder: Path
    threads: int

    def run(self, *arguments: str) -> None:
        """Run a command of chemprop.

        Raises:
            ChempropError: If the interpreter cannot be started or chemprop fails.
        """
        try:
            run = subprocess.run(
                [self.python, "-c", _MAIN, *arguments],
                env={**os.environ, "OMP_NUM_THREADS": str(self.threads)},
                cwd=self.folder,  # chemprop writes logs to its working directory
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        except OSError as error:
            raise ChempropError(f"{self.python} cannot be run: {error.strerror}") from error
        if run.returncode:
            output = run.stdout[-_MAX_ERROR_CHARACTERS:]
            raise ChempropError(
                f"chemprop {arguments[0]} exited with status {run.returncode}: {output}"
            )


def _train(
    chemprop: _Chemprop, problem: Problem, ids: Sequence[int], seed: int, epochs: int
) -> None:
    task, folder = problem.task, chemprop.folder
    classes = {label: index for index, label in enumerate(ids)}
    # chemprop fails on valid rows with a label that no train row has.
    valid = [row for row in problem.valid if not ids or row.target in classes]
    train_file, valid_file = folder / "train.csv", folder / "valid.csv"
    _write_rows(train_file, problem.train, classes, both_orders=task.symmetric)
    _write_rows(valid_file, valid, classes, both_orders=False)
    options = ["--task-type", "regression"]
    if ids:
        options = ["--task-type", "classification"]
    if len(ids) > 2:
        options = ["--task-type", "multiclass", "--multiclass-num-classes", str(len(ids))]
    if task.symmetric:
        options.append("--mpn-shared")
    # chemprop requires a third file to test on, so it gets the valid rows again.
    files = [str(path) for path in (train_file, valid_file, valid_file)]
    chemprop.run(
        *("train", "--data-path", *files, "--output-dir", str(folder / "model")),
        *("--smiles-columns", *_SMILES_COLUMNS, "--target-columns", _TARGET_COLUMN, *options),
        *("--epochs", str(epochs), "--pytorch-seed", str(seed), "--data-seed", str(seed)),
    )


def _predict(chemprop: _Chemprop, pairs: Iterable[tuple[str, ...]]) -> Array:
    """Return the predicted numbers or the probability of each class, ``[pairs, columns]``."""
    folder = chemprop.folder
    pairs_file, predictions_file = folder / "pairs.csv", folder / "predictions.csv"
    _write_csv(pairs_file, _SMILES_COLUMNS, pairs)
    chemprop.run(
        *("predict", "--test-path", str(pairs_file), "--output", str(predictions_file)),
        *("--smiles-columns", *_SMILES_COLUMNS, "--model-paths", str(folder / "model")),
    )
    return _read_predictions(pairs_file, predictions_file)


def _read_predictions(pairs_file: Path, predictions_file: Path) -> Array:
    """Read the column that chemprop added: probabilities of classes if present, or numbers.

    Raises:
        ChempropError: If the rows are not those of the pairs.
    """
    with pairs_file.open(newline="") as file:
        pairs = list(csv.reader(file))[1:]
    with predictions_file.open(newline="") as file:
        header, *rows = csv.reader(file)
    if [row[: len(_SMILES_COLUMNS)] for row in rows] != pairs:
        raise ChempropError("chemprop's predictions have other rows than its input")
    probabilities = f"{_TARGET_COLUMN}_prob"
    column = header.index(probabilities if probabilities in header else _TARGET_COLUMN)
    return np.array([[float(value) for value in row[column].split(",")] for row in rows])


def _answers(task: Task, rows: Sequence[Row], ids: Sequence[int], predictions: Array) -> Answers:
    if not ids:
        return number_answers(task, rows, predictions[:, 0])
    if len(ids) == 2:
        predictions = np.concatenate([1 - predictions, predictions], axis=1)
    if predictions.shape[1] != len(ids):
        raise ChempropError(
            f"chemprop returned {predictions.shape[1]} probabilities per pair for {len(ids)} labels"
        )
    return label_answers(task, rows, ids, predictions)


def _write_rows(
    path: Path, rows: Iterable[Row], classes: dict[int, int], *, both_orders: bool
) -> None:
    lines = []
    for row in rows:
        target = classes[row.target] if classes else row.target
        lines.append((*row.molecules, target))
        if both_orders:
            lines.append((*row.molecules[::-1], target))
    _write_csv(path, (*_SMILES_COLUMNS, _TARGET_COLUMN), lines)


def _write_csv(path: Path, header: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
