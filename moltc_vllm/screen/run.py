"""The screen itself: pairs to an engine, answers to parts, each row once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moltc_vllm.screen.inputs import Inputs, UnreadRowError
from moltc_vllm.screen.parts import Done, Layout, is_written, write_part
from moltc_vllm.screen.plan import Plan, Todo
from moltc_vllm.tasks import Answer, Task
from moltc_vllm.tasks.engine import Engine, EngineError, Pair


class Watcher(Protocol):
    """Who looks at a screen while it goes on."""

    def at(self, done: int, total: int, failed: int) -> None:
        """So many rows have an answer, of which so many failed in this call."""
        ...


@dataclass(frozen=True, slots=True)
class Screen:
    """What is asked, and where the answers go.

    Attributes:
        folder: Of the parts.
        task: What is asked about each pair.
        question: For a task that takes one.
        plan: All pairs.
        inputs: Their molecules.
        layout: Of the parts.
        part_rows: Pairs of a part.
        identity: Of the whole, see `moltc_vllm.screen.manifest`.
    """

    folder: Path
    task: Task
    question: str | None
    plan: Plan
    inputs: Inputs
    layout: Layout
    part_rows: int
    identity: str

    @property
    def parts(self) -> int:
        """How many parts there are in the end."""
        return -(-len(self.plan) // self.part_rows)

    def size(self, part: int) -> int:
        """Rows of a part."""
        return min(self.part_rows, len(self.plan) - part * self.part_rows)

    def missing(self) -> list[int]:
        """Numbers of the parts that are still to be made."""
        return [
            part
            for part in range(self.parts)
            if not is_written(self.folder, part, self.size(part), self.identity)
        ]


def run(
    screen: Screen,
    engine: Engine,
    watcher: Watcher,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Make the parts that are missing.

    Pairs are drawn as fast as the engine takes them, and answers are held until their part is
    whole: memory does not depend on how many pairs there are.

    Args:
        screen: What to do.
        engine: Who answers.
        watcher: Is told of progress.
        stop: Asked before each part is begun; those that are begun are finished.

    Returns:
        Whether all parts are there.

    Raises:
        EngineError: If the engine answers a pair twice, or one that it was not given.
        Exception: What the engine raises; parts that were whole by then are written.
    """
    missing = screen.missing()
    work = _Work(screen, watcher, len(screen.plan) - sum(map(screen.size, missing)))
    pairs = work.pairs(missing, stop)
    for pair, answer in engine.submit(screen.task.name, pairs, screen.question):
        work.take(pair.row, answer)
    work.finish()
    return work.begun == len(missing)


class _Part:
    """A part that is being made."""

    def __init__(self, todos: list[Todo]) -> None:
        self.todos = todos
        self.answers: list[Answer | None] = [None] * len(todos)
        self.open = len(todos)


class _Work:
    def __init__(self, screen: Screen, watcher: Watcher, done: int) -> None:
        self._screen, self._watcher = screen, watcher
        self._parts: dict[int, _Part] = {}
        self._done, self._failed = done, 0
        self.begun = 0

    def pairs(self, missing: list[int], stop: Callable[[], bool]) -> Iterator[Pair]:
        """The pairs of the missing parts that can be asked about; the others are answered here."""
        screen = self._screen
        for number in missing:
            if stop():
                return
            start = number * screen.part_rows
            todos = list(screen.plan.places(start, start + screen.size(number)))
            self._parts[number] = _Part(todos)
            self.begun += 1
            for place, todo in enumerate(todos, start):
                try:
                    molecules = screen.inputs.molecules(todo)
                except UnreadRowError as error:
                    self.take(place, screen.task.failed("error", str(error)))
                    continue
                yield Pair(place, molecules)

    def take(self, place: int, answer: Answer) -> None:
        """An answer; the last one of a part writes it."""
        number, offset = divmod(place, self._screen.part_rows)
        part = self._parts.get(number)
        if part is None or not 0 <= offset < len(part.todos) or part.answers[offset] is not None:
            raise EngineError(f"the engine answered pair {place} twice, or was never asked it")
        part.answers[offset] = answer
        part.open -= 1
        self._done += 1
        self._failed += answer.status != "ok"
        if not part.open:
            self._write(number)
        self._watcher.at(self._done, len(self._screen.plan), self._failed)

    def finish(self) -> None:
        """What the engine has forgotten is said so."""
        for number in list(self._parts):
            start = number * self._screen.part_rows
            forgotten = self._screen.task.failed("error", "the engine gave no answer")
            for offset, answer in enumerate(list(self._parts[number].answers)):
                if answer is None:
                    self.take(start + offset, forgotten)

    def _write(self, number: int) -> None:
        part = self._parts.pop(number)
        rows = zip(part.todos, part.answers, strict=True)
        done = [Done(todo, answer) for todo, answer in rows if answer is not None]
        table = self._screen.layout.table(done)
        write_part(self._screen.folder, number, table, self._screen.identity)
