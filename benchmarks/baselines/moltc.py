"""A moltc checkpoint, asked now or by an earlier ``moltc evaluate --out``."""

from __future__ import annotations

import csv
from pathlib import Path

from baselines.problem import Answers, Problem, Solved
from moltc_vllm.cli.engines import EngineName, open_engine
from moltc_vllm.data import Row
from moltc_vllm.engines.symmetric import SymmetrizedEngine
from moltc_vllm.evaluate.predict import ask
from moltc_vllm.models.checkpoint import read_card
from moltc_vllm.tasks import Answer, Number, Task


class UnseenError(ValueError):
    """A checkpoint knows the molecules that it is to be asked about."""


class PredictionsError(ValueError):
    """A file of predictions does not fit the data."""


def check_unseen(model: Path, fraction: float, seed: int) -> None:
    """Refuse a checkpoint that has learned from what is to be scored.

    Raises:
        UnseenError: Unless every stage of its training set the same molecules aside.
    """
    stages = read_card(model).get("stages", [])
    wanted = {"fraction": fraction, "seed": seed}
    if not stages or any(stage.get("unseen") != wanted for stage in stages):
        raise UnseenError(
            f"{model.name} was not trained without these molecules: every stage needs "
            f"--set unseen='{{fraction: {fraction}, seed: {seed}}}'"
        )


def ask_checkpoint(problem: Problem, model: Path, engine: str) -> Solved:
    """Ask about every row; of two drugs in both orders, as `moltc evaluate` does."""
    loaded = SymmetrizedEngine(open_engine(model, None, EngineName(engine)))
    return Solved({row.number: answer for row, answer in ask(loaded, problem.task, problem.asked)})


def read_predictions(problem: Problem, path: Path) -> Solved:
    """Answers from a ``predictions.csv``; it may have more rows than are scored.

    Raises:
        PredictionsError: If a row is missing, was not reached, or is of other molecules.
    """
    with path.open(encoding="utf-8", newline="") as file:
        given = {int(cells["row"]): cells for cells in csv.DictReader(file)}
    answers: Answers = {}
    for row in problem.asked:
        cells = given.get(row.number)
        if cells is None or cells["status"] in {"not_reached", "not_measured"}:
            raise PredictionsError(f"{path.name} has no answer to row {row.number}")
        answers[row.number] = _answer(problem.task, row, cells, path)
    return Solved(answers)


def _answer(task: Task, row: Row, cells: dict[str, str], path: Path) -> Answer:
    # Columns of molecules are called as in the data and follow the row's number.
    molecules = tuple(cells.values())[1 : 1 + len(row.molecules)]
    if molecules != row.molecules or cells["target"] != str(row.target):
        raise PredictionsError(f"{path.name}, row {row.number}: other molecules or target")
    text, status = cells["text"] or None, cells["status"]
    if status != "ok":
        return task.failed(status, cells["error"], text)  # type: ignore[arg-type]
    found: dict[str, object] = {}
    if isinstance(task.kind, Number):
        value = float(cells["answer"])  # what is scored; the number as written is in the text
        found = {"value": value, "generated_value": value, "unit": task.kind.unit or None}
        if cells["interval_low"]:
            found["interval"] = float(cells["interval_low"]), float(cells["interval_high"])
    else:
        names = {label.id: label.name for label in task.kind.labels}
        place = int(cells["answer"])
        found = {"label": names[place], "label_id": place}
    confidence = float(cells["confidence"]) if cells["confidence"] else None
    return Answer(task=task.name, status="ok", text=text, confidence=confidence, **found)
