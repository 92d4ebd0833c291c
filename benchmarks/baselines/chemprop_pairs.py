"""chemprop's model of molecule pairs: a message-passing network for each, and one head.

chemprop is run as a program by an interpreter that has it, for it needs another RDKit than the
project's (2.3.1 takes 2026.3.6 with it, on which our canonical SMILES would depend):

    python -m venv ../chemprop && ../chemprop/bin/pip install 'chemprop>=2.3,<2.4'

Its own settings but for the epochs; of all epochs it keeps the one that is best on the valid rows.
It is never told the targets of the rows that are scored. Where the order of the molecules means
nothing, both share one network, both orders are learned from, and the answers to both are
averaged.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baselines.answers import Array, label_answers, number_answers, targets
from baselines.problem import Answers, Problem, Solved, cpu_seconds
from moltc_vllm.data import Row
from moltc_vllm.tasks import Number, Task

EPOCHS = 25

_MAIN = "from chemprop.cli.main import main; main()"
_MOLECULES, _TARGET = ("smiles_1", "smiles_2"), "target"
_SAID = 2000  # characters of what chemprop said before it failed


class ChempropError(RuntimeError):
    """chemprop is not there, or failed; the message ends with what it said."""


def settings_of(task: Task, epochs: int) -> dict[str, Any]:
    """What a task is learned with."""
    return {"epochs": epochs, "mpn_shared": task.symmetric}


def solve(problem: Problem, *, python: str, seed: int, threads: int, epochs: int) -> Solved:
    """Train and predict in a temporary folder.

    Raises:
        ChempropError: If it cannot be run.
    """
    task, rows = problem.task, problem.asked
    ids = [] if isinstance(task.kind, Number) else sorted(set(targets(problem.train).tolist()))
    with tempfile.TemporaryDirectory() as name:
        folder, begin = Path(name), cpu_seconds()
        _train(problem, ids, folder, python, seed, threads, epochs)
        trained = cpu_seconds()
        orders = [[row.molecules for row in rows]]
        if task.symmetric:
            orders.append([row.molecules[::-1] for row in rows])
        predicted = [_predict(pairs, folder, python, threads) for pairs in orders]
        answers = _answers(task, rows, ids, np.mean(predicted, axis=0))
        end = cpu_seconds()
    counts = len(problem.train), len(problem.valid)
    return Solved(answers, trained - begin, end - trained, *counts)


def versions(python: str) -> dict[str, str]:
    """What the interpreter has of what decides the results."""
    names = ("chemprop", "rdkit", "torch", "lightning")
    code = "import importlib.metadata as m, json, sys; "
    code += f"json.dump({{name: m.version(name) for name in {names}}}, sys.stdout)"
    run = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(run.stdout)
    return found


def _train(
    problem: Problem,
    ids: Sequence[int],
    folder: Path,
    python: str,
    seed: int,
    threads: int,
    epochs: int,
) -> None:
    task = problem.task
    classes = {label: place for place, label in enumerate(ids)}
    # A label that was never learned would be an error in the valid rows.
    valid = [row for row in problem.valid if not ids or row.target in classes]
    train_file, valid_file = folder / "train.csv", folder / "valid.csv"
    _write_rows(train_file, problem.train, classes, both_orders=task.symmetric)
    _write_rows(valid_file, valid, classes, both_orders=False)
    kind = ["--task-type", "regression"]
    if ids:
        kind = ["--task-type", "classification"]
    if len(ids) > 2:
        kind = ["--task-type", "multiclass", "--multiclass-num-classes", str(len(ids))]
    if task.symmetric:
        kind.append("--mpn-shared")
    # It wants a third file to test on: the valid rows again.
    files = [str(path) for path in (train_file, valid_file, valid_file)]
    _run(
        python,
        folder,
        threads,
        *("train", "--data-path", *files, "--output-dir", str(folder / "model")),
        *("--smiles-columns", *_MOLECULES, "--target-columns", _TARGET, *kind),
        *("--epochs", str(epochs), "--pytorch-seed", str(seed), "--data-seed", str(seed)),
    )


def _predict(pairs: Iterable[tuple[str, ...]], folder: Path, python: str, threads: int) -> Array:
    """Numbers, or the probability of each class: ``[pairs, columns]``."""
    asked, given = folder / "asked.csv", folder / "given.csv"
    _write(asked, _MOLECULES, pairs)
    _run(
        python,
        folder,
        threads,
        *("predict", "--test-path", str(asked), "--output", str(given)),
        *("--smiles-columns", *_MOLECULES, "--model-paths", str(folder / "model")),
    )
    return _read(asked, given)


def _read(asked: Path, given: Path) -> Array:
    """The column that chemprop added: a number, or where it has one, the probabilities of classes.

    Raises:
        ChempropError: If its rows are not those that it was asked about.
    """
    with asked.open(newline="") as file:
        wanted = list(csv.reader(file))[1:]
    with given.open(newline="") as file:
        header, *rows = csv.reader(file)
    if [row[: len(_MOLECULES)] for row in rows] != wanted:
        raise ChempropError("chemprop answered other rows than it was asked about")
    of_classes = f"{_TARGET}_prob"
    place = header.index(of_classes if of_classes in header else _TARGET)
    return np.array([[float(part) for part in row[place].split(",")] for row in rows])


def _answers(task: Task, rows: Sequence[Row], ids: Sequence[int], predicted: Array) -> Answers:
    if not ids:
        return number_answers(task, rows, predicted[:, 0])
    if len(ids) == 2:
        predicted = np.concatenate([1 - predicted, predicted], axis=1)
    if predicted.shape[1] != len(ids):
        raise ChempropError(f"{predicted.shape[1]} probabilities for {len(ids)} labels")
    return label_answers(task, rows, ids, predicted)


def _write_rows(
    path: Path, rows: Iterable[Row], classes: dict[int, int], *, both_orders: bool
) -> None:
    lines = []
    for row in rows:
        target = classes[row.target] if classes else row.target
        lines.append((*row.molecules, target))
        if both_orders:
            lines.append((*row.molecules[::-1], target))
    _write(path, (*_MOLECULES, _TARGET), lines)


def _write(path: Path, header: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


def _run(python: str, folder: Path, threads: int, *arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [python, "-c", _MAIN, *arguments]
    try:
        run = subprocess.run(
            command,
            env=environment,
            cwd=folder,  # it writes logs beside it
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except OSError as error:
        raise ChempropError(f"{python} cannot be run: {error.strerror}") from error
    if run.returncode:
        said = run.stdout[-_SAID:]
        raise ChempropError(f"chemprop {arguments[0]} ended with {run.returncode}: {said}")
