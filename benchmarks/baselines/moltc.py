"""Answers of a moltc checkpoint, computed now or by an earlier ``moltc evaluate --out``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from baselines.problem import Answers, Problem, Solution
from moltc_vllm.cli.engines import EngineName, open_engine
from moltc_vllm.data import Row
from moltc_vllm.data.unseen import SplitBy
from moltc_vllm.engines.symmetric import SymmetrizedEngine
from moltc_vllm.evaluate.predict import predict_rows
from moltc_vllm.models.checkpoint import load_config, read_card
from moltc_vllm.tasks import Answer, Number, Task, resolve_task


class UnseenError(ValueError):
    """Checkpoint that was trained on the molecules that count as unseen."""


class PredictionsError(ValueError):
    """Predictions that do not fit the data."""


def check_unseen(model: Path, fraction: float, seed: int, by: SplitBy = "molecule") -> None:
    """Check that a checkpoint was not trained on the molecules that are held out.

    Args:
        model: Checkpoint folder.
        fraction: Fraction of the molecules that are held out.
        seed: Seed of the selection.
        by: Whether molecules or scaffolds are held out.

    Raises:
        UnseenError: Unless every stage of the training held out the same molecules.
    """
    stages = read_card(model).get("stages", [])
    expected = {"fraction": fraction, "seed": seed, "by": by}

    def holds_out(stage: dict[str, Any]) -> bool:
        unseen = stage.get("unseen")
        return unseen is not None and {"by": "molecule", **unseen} == expected

    if not stages or not all(map(holds_out, stages)):
        settings = ", ".join(f"{name}: {value}" for name, value in expected.items())
        raise UnseenError(
            f"{model.name} was not trained without these molecules: every stage needs "
            f"--set unseen='{{{settings}}}'"
        )


def predict(problem: Problem, model: Path, engine: str) -> Solution:
    """Answer the scored rows with a checkpoint, as ``moltc evaluate`` does.

    Symmetric yes/no questions are asked in both orders. A checkpoint that is older than the task is
    asked the task's fallback.

    Args:
        problem: Rows to answer.
        model: Checkpoint folder.
        engine: Name of the engine.
    """
    symmetrized = SymmetrizedEngine(open_engine(model, None, EngineName(engine)))
    task = resolve_task(problem.task, load_config(model).tasks)
    answers = predict_rows(symmetrized, task, problem.test_rows)
    return Solution({row.number: answer for row, answer in answers})


def read_predictions(problem: Problem, path: Path) -> Solution:
    """Read the answers to the scored rows from a ``predictions.csv``.

    Args:
        problem: Rows to answer; the file may have further rows.
        path: File that ``moltc evaluate --out`` wrote.

    Raises:
        PredictionsError: If a row is missing, was not answered, or has other molecules.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = {int(cells["row"]): cells for cells in csv.DictReader(file)}
    answers: Answers = {}
    for row in problem.test_rows:
        cells = lines.get(row.number)
        if cells is None or cells["status"] in {"not_reached", "not_measured"}:
            raise PredictionsError(f"{path.name} has no answer to row {row.number}")
        answers[row.number] = _parse_answer(problem.task, row, cells, path)
    return Solution(answers)


def _parse_answer(task: Task, row: Row, cells: dict[str, str], path: Path) -> Answer:
    # The molecule columns have the names of the data and follow the row number.
    molecules = tuple(cells.values())[1 : 1 + len(row.molecules)]
    if molecules != row.molecules or cells["target"] != str(row.target):
        raise PredictionsError(
            f"{path.name}, row {row.number}: molecules or target differ from the data"
        )
    text, status = cells["text"] or None, cells["status"]
    if status != "ok":
        return task.failed(status, cells["error"], text)  # type: ignore[arg-type]
    fields: dict[str, object] = {}
    if isinstance(task.kind, Number):
        # The column has the scored value; the generated number is only in the text.
        value = float(cells["answer"])
        fields = {"value": value, "generated_value": value, "unit": task.kind.unit or None}
        if cells["interval_low"]:
            fields["likeliest_interval"] = (
                float(cells["interval_low"]),
                float(cells["interval_high"]),
            )
    else:
        names = {label.id: label.name for label in task.kind.labels}
        label_id = int(cells["answer"])
        fields = {"label": names[label_id], "label_id": label_id}
    confidence = float(cells["confidence"]) if cells["confidence"] else None
    return Answer(task=task.name, status="ok", text=text, confidence=confidence, **fields)
