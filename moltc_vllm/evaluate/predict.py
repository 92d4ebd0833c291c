"""Every row to an engine, and its answer back."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from moltc_vllm.data.dataset import Row
from moltc_vllm.tasks import Answer, Task
from moltc_vllm.tasks.engine import Engine, EngineError, Pair


def ask(engine: Engine, task: Task, rows: Sequence[Row]) -> Generator[tuple[Row, Answer]]:
    """Ask about every row; answers come in any order, each row once.

    A row that the engine forgot has an `Answer` which says so.

    Raises:
        EngineError: If a row is answered twice, or was never asked.
    """
    waiting = {row.number: row for row in rows}
    pairs = (Pair(row.number, row.molecules) for row in rows)
    for pair, answer in engine.submit(task.name, pairs):
        row = waiting.pop(pair.row, None)
        if row is None:
            raise EngineError(f"row {pair.row} was answered twice, or was never asked")
        yield row, answer
    for row in waiting.values():
        yield row, task.failed("error", "the engine gave no answer")
