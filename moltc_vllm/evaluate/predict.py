"""Prediction of a data set's rows with any engine."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from moltc_vllm.data.dataset import Row
from moltc_vllm.tasks import Answer, Task
from moltc_vllm.tasks.engine import Engine, EngineError, Pair


def predict_rows(engine: Engine, task: Task, rows: Sequence[Row]) -> Generator[tuple[Row, Answer]]:
    """Submit all rows to an engine and yield each row's answer once, in any order.

    A row that the engine never answered gets an `Answer` with status ``error``.

    Args:
        engine: Engine to submit to.
        task: Task of the rows.
        rows: Rows with distinct numbers.

    Raises:
        EngineError: If the engine answers a row twice, or one that was not submitted.
    """
    unanswered = {row.number: row for row in rows}
    pairs = (Pair(row.number, row.molecules) for row in rows)
    for pair, answer in engine.submit(task.name, pairs):
        row = unanswered.pop(pair.row, None)
        if row is None:
            raise EngineError(f"the engine answered row {pair.row} twice, or without a request")
        yield row, answer
    for row in unanswered.values():
        yield row, task.failed("error", "the engine returned no answer")
