"""The screen itself: pairs to an engine, answers to parts, each row once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from moltc_vllm.screening.inputs import Inputs, UnreadRowError
from moltc_vllm.screening.manifest import locked
from moltc_vllm.screening.parts import (
    STATUS,
    Done,
    Layout,
    answer_of,
    is_marked,
    is_written,
    mark_again,
    read_part,
    read_statuses,
    write_part,
)
from moltc_vllm.screening.plan import Plan, Todo
from moltc_vllm.tasks import Answer, Task
from moltc_vllm.tasks.engine import Engine, EngineError, Pair

_FAILED = "error"
"""Status of a pair that may have an answer if it is asked about again."""


@dataclass(slots=True)
class Progress:
    """How far a screen is, and where its time went.

    Attributes:
        total: Rows in the end.
        done: Rows that have an answer, from earlier calls, too.
        failed: Of this call's rows those without an answer.
        reading_s: Seconds of finding the next pairs.
        waiting_s: Seconds of waiting for the engine.
        writing_s: Seconds of writing parts.
    """

    total: int
    done: int = 0
    failed: int = 0
    reading_s: float = 0.0
    waiting_s: float = 0.0
    writing_s: float = 0.0


class Watcher(Protocol):
    """Who looks at a screen while it goes on."""

    def at(self, progress: Progress) -> None:
        """Called after each answer; the object is always the same one."""
        ...


@runtime_checkable
class Maker(Protocol):
    """Who makes parts: an engine here, or others elsewhere."""

    def make(
        self,
        screen: Screen,
        watcher: Watcher,
        stop: Callable[[], bool],
        missing: Sequence[int],
    ) -> Iterator[int]:
        """Make these parts; the number of each one when it has been written."""
        ...


class Unwatched:
    """Nobody looks."""

    def at(self, progress: Progress) -> None:
        """See `Watcher`."""


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
        identity: Of the whole, see `moltc_vllm.screening.manifest`.
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

    def missing(self, among: Iterable[int] | None = None) -> list[int]:
        """Numbers of the parts that are to be made, of all or of some."""
        return [
            part
            for part in (range(self.parts) if among is None else among)
            if not self._is_written(part) or is_marked(self.folder, part)
        ]

    def open_rows(self, missing: Iterable[int]) -> dict[int, int]:
        """How many rows of each part that is to be made have no answer yet."""
        return {
            part: read_statuses(self.folder, part).count(_FAILED)
            if self._is_written(part)
            else self.size(part)
            for part in missing
        }

    def ask_again(self) -> None:
        """Let the parts be made again in which pairs ended in an error.

        Only such pairs are asked about then: all other rows are taken over. Rows that cannot be
        read are no reason.
        """
        for part in range(self.parts):
            if self._is_written(part) and self._has_failed(part):
                mark_again(self.folder, part)

    def answered(self, part: int) -> dict[int, Answer]:
        """By its place in the part, what one that is made again takes over."""
        if not self._is_written(part):
            return {}
        rows = read_part(self.folder, part).to_pylist()
        return {
            place: answer_of(self.task, row)
            for place, row in enumerate(rows)
            if row[STATUS] != _FAILED
        }

    def _is_written(self, part: int) -> bool:
        return is_written(self.folder, part, self.size(part), self.identity)

    def _has_failed(self, part: int) -> bool:
        statuses = read_statuses(self.folder, part)
        if _FAILED not in statuses:
            return False
        start = part * self.part_rows
        todos = self.plan.places(start, start + self.size(part))
        return any(
            status == _FAILED and self._can_be_asked(todo)
            for status, todo in zip(statuses, todos, strict=True)
        )

    def _can_be_asked(self, todo: Todo) -> bool:
        try:
            self.inputs.molecules(todo)
        except UnreadRowError:
            return False
        return True


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
        ManifestError: If another process is at it.
        Exception: What the engine raises; parts that were whole by then are written.
    """
    return run_by(Here(engine), screen, watcher, stop)


def run_by(
    maker: Maker,
    screen: Screen,
    watcher: Watcher,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """As `run`, whoever makes the parts."""
    missing = screen.missing()
    return sum(1 for _ in maker.make(screen, watcher, stop, missing)) == len(missing)


@dataclass(frozen=True, slots=True)
class Here:
    """Parts are made in this process.

    Attributes:
        engine: Who answers.
    """

    engine: Engine

    def make(
        self,
        screen: Screen,
        watcher: Watcher,
        stop: Callable[[], bool],
        missing: Sequence[int],
    ) -> Iterator[int]:
        """See `Maker`."""
        with locked(screen.folder):
            yield from make_parts(screen, self.engine, watcher, stop, missing)


def make_parts(
    screen: Screen,
    engine: Engine,
    watcher: Watcher,
    stop: Callable[[], bool],
    missing: Sequence[int],
) -> Iterator[int]:
    """As `run`, step by step, in a folder that the caller has locked."""
    work = _Work(screen, watcher, len(screen.plan) - sum(screen.open_rows(missing).values()))
    answers = engine.submit(screen.task.name, work.pairs(missing, stop), screen.question)
    for pair, answer in work.waited_for(answers):
        work.take(pair.row, answer)
        yield from work.written()
    work.finish()
    yield from work.written()


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
        self._written: list[int] = []
        self._progress = Progress(len(screen.plan), done)

    def waited_for(self, answers: Iterator[tuple[Pair, Answer]]) -> Iterator[tuple[Pair, Answer]]:
        """The answers. Their time is the engine's, less that in which it was given pairs."""
        progress = self._progress
        while True:
            before, reading = time.perf_counter(), progress.reading_s + progress.writing_s
            found = next(answers, None)
            spent = progress.reading_s + progress.writing_s - reading
            progress.waiting_s += time.perf_counter() - before - spent
            if found is None:
                return
            yield found

    def written(self) -> Iterator[int]:
        """Parts that have been written since this was asked."""
        while self._written:
            yield self._written.pop()

    def pairs(self, missing: Sequence[int], stop: Callable[[], bool]) -> Iterator[Pair]:
        """The pairs of the missing parts that can be asked about; the others are answered here."""
        screen, progress = self._screen, self._progress
        for number in missing:
            if stop():
                return
            start = number * screen.part_rows
            begin = time.perf_counter()
            todos = list(screen.plan.places(start, start + screen.size(number)))
            answered = screen.answered(number)
            progress.reading_s += time.perf_counter() - begin
            self._parts[number] = _Part(todos)
            for place, todo in enumerate(todos, start):
                begin = time.perf_counter()
                kept = answered.get(place - start)
                found = kept or self._pair(place, todo)
                progress.reading_s += time.perf_counter() - begin
                if isinstance(found, Answer):
                    self.take(place, found, new=kept is None)
                else:
                    yield found

    def _pair(self, place: int, todo: Todo) -> Pair | Answer:
        try:
            return Pair(place, self._screen.inputs.molecules(todo))
        except UnreadRowError as error:
            return self._screen.task.failed("error", str(error))

    def take(self, place: int, answer: Answer, *, new: bool = True) -> None:
        """An answer; the last one of a part writes it."""
        number, offset = divmod(place, self._screen.part_rows)
        part = self._parts.get(number)
        if part is None or not 0 <= offset < len(part.todos) or part.answers[offset] is not None:
            raise EngineError(f"the engine answered pair {place} twice, or was never asked it")
        part.answers[offset] = answer
        part.open -= 1
        if new:
            self._progress.done += 1
            self._progress.failed += answer.status != "ok"
        if not part.open:
            begin = time.perf_counter()
            self._write(number)
            self._progress.writing_s += time.perf_counter() - begin
        self._watcher.at(self._progress)

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
        self._written.append(number)
