"""The screen itself: pairs to an engine, answers to parts, each row once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from moltc_vllm.screening.inputs import PairTables, UnreadableRowError
from moltc_vllm.screening.manifest import locked
from moltc_vllm.screening.parts import (
    STATUS,
    AnsweredPair,
    Layout,
    answer_of,
    is_written,
    mark_for_retry,
    needs_retry,
    read_part,
    read_statuses,
    write_part,
)
from moltc_vllm.screening.plan import PairIndex, Plan
from moltc_vllm.tasks import Answer, Task
from moltc_vllm.tasks.engine import Engine, EngineError, Pair

_FAILED = "error"
"""Status of a pair that may have an answer if it is asked about again."""


@dataclass(slots=True)
class Progress:
    """PairingMode far a screen is, and where its time went.

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


class ProgressCallback(Protocol):
    """Who looks at a screen while it goes on."""

    def at(self, progress: Progress) -> None:
        """Called after each answer; the object is always the same one."""
        ...


@runtime_checkable
class PartExecutor(Protocol):
    """Who makes parts: an engine here, or others elsewhere."""

    def make(
        self,
        screen: Screen,
        progress_callback: ProgressCallback,
        stop: Callable[[], bool],
        missing: Sequence[int],
    ) -> Iterator[int]:
        """Make these parts; the number of each one when it has been written."""
        ...


class NullProgress:
    """Nobody looks."""

    def at(self, progress: Progress) -> None:
        """See `ProgressCallback`."""


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
    inputs: PairTables
    layout: Layout
    part_rows: int
    identity: str

    @property
    def parts(self) -> int:
        """PairingMode many parts there are in the end."""
        return -(-len(self.plan) // self.part_rows)

    def size(self, part: int) -> int:
        """Rows of a part."""
        return min(self.part_rows, len(self.plan) - part * self.part_rows)

    def missing(self, among: Iterable[int] | None = None) -> list[int]:
        """Numbers of the parts that are to be made, of all or of some."""
        return [
            part
            for part in (range(self.parts) if among is None else among)
            if not self._is_written(part) or needs_retry(self.folder, part)
        ]

    def open_rows(self, missing: Iterable[int]) -> dict[int, int]:
        """PairingMode many rows of each part that is to be made have no answer yet."""
        return {
            part: read_statuses(self.folder, part).count(_FAILED)
            if self._is_written(part)
            else self.size(part)
            for part in missing
        }

    def retry_errors_in_parts(self) -> None:
        """Let the parts be made again in which pairs ended in an error.

        Only such pairs are asked about then: all other rows are taken over. Rows that cannot be
        read are no reason.
        """
        for part in range(self.parts):
            if self._is_written(part) and self._has_failed(part):
                mark_for_retry(self.folder, part)

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
        indices = self.plan.slice(start, start + self.size(part))
        return any(
            status == _FAILED and self._can_be_asked(index)
            for status, index in zip(statuses, indices, strict=True)
        )

    def _can_be_asked(self, index: PairIndex) -> bool:
        try:
            self.inputs.molecules(index)
        except UnreadableRowError:
            return False
        return True


def run(
    screen: Screen,
    engine: Engine,
    progress_callback: ProgressCallback,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Make the parts that are missing.

    Pairs are drawn as fast as the engine takes them, and answers are held until their part is
    whole: memory does not depend on how many pairs there are.

    Args:
        screen: What to do.
        engine: Who answers.
        progress_callback: Is told of progress.
        stop: Asked before each part is begun; those that are begun are finished.

    Returns:
        Whether all parts are there.

    Raises:
        EngineError: If the engine answers a pair twice, or one that it was not given.
        ManifestError: If another process is at it.
        Exception: What the engine raises; parts that were whole by then are written.
    """
    return run_with_executor(LocalExecutor(engine), screen, progress_callback, stop)


def run_with_executor(
    maker: PartExecutor,
    screen: Screen,
    progress_callback: ProgressCallback,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """As `run`, whoever makes the parts."""
    missing = screen.missing()
    return sum(1 for _ in maker.make(screen, progress_callback, stop, missing)) == len(missing)


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Parts are made in this process.

    Attributes:
        engine: Who answers.
    """

    engine: Engine

    def make(
        self,
        screen: Screen,
        progress_callback: ProgressCallback,
        stop: Callable[[], bool],
        missing: Sequence[int],
    ) -> Iterator[int]:
        """See `PartExecutor`."""
        with locked(screen.folder):
            yield from compute_parts(screen, self.engine, progress_callback, stop, missing)


def compute_parts(
    screen: Screen,
    engine: Engine,
    progress_callback: ProgressCallback,
    stop: Callable[[], bool],
    missing: Sequence[int],
) -> Iterator[int]:
    """As `run`, step by step, in a folder that the caller has locked."""
    work = _Work(
        screen, progress_callback, len(screen.plan) - sum(screen.open_rows(missing).values())
    )
    answers = engine.submit(screen.task.name, work.pairs(missing, stop), screen.question)
    for pair, answer in work.waited_for(answers):
        work.take(pair.row, answer)
        yield from work.written()
    work.finish()
    yield from work.written()


class _Part:
    """A part that is being made."""

    def __init__(self, indices: list[PairIndex]) -> None:
        self.indices = indices
        self.answers: list[Answer | None] = [None] * len(indices)
        self.open = len(indices)


class _Work:
    def __init__(self, screen: Screen, progress_callback: ProgressCallback, done: int) -> None:
        self._screen, self._watcher = screen, progress_callback
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
            indices = list(screen.plan.slice(start, start + screen.size(number)))
            answered = screen.answered(number)
            progress.reading_s += time.perf_counter() - begin
            self._parts[number] = _Part(indices)
            for place, index in enumerate(indices, start):
                begin = time.perf_counter()
                kept = answered.get(place - start)
                found = kept or self._pair(place, index)
                progress.reading_s += time.perf_counter() - begin
                if isinstance(found, Answer):
                    self.take(place, found, new=kept is None)
                else:
                    yield found

    def _pair(self, place: int, index: PairIndex) -> Pair | Answer:
        try:
            return Pair(place, self._screen.inputs.molecules(index))
        except UnreadableRowError as error:
            return self._screen.task.failed("error", str(error))

    def take(self, place: int, answer: Answer, *, new: bool = True) -> None:
        """An answer; the last one of a part writes it."""
        number, offset = divmod(place, self._screen.part_rows)
        part = self._parts.get(number)
        if part is None or not 0 <= offset < len(part.indices) or part.answers[offset] is not None:
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
        rows = zip(part.indices, part.answers, strict=True)
        done = [AnsweredPair(index, answer) for index, answer in rows if answer is not None]
        table = self._screen.layout.table(done)
        write_part(self._screen.folder, number, table, self._screen.identity)
        self._written.append(number)
