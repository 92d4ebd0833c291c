"""Run a screen: submit its pairs to an engine and write the answers in parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from moltc_vllm.screening.inputs import UnreadableRowError
from moltc_vllm.screening.manifest import lock_folder
from moltc_vllm.screening.parts import AnsweredPair, write_part
from moltc_vllm.screening.plan import PairIndex
from moltc_vllm.screening.progress import NullProgress, ProgressCallback, ScreenProgress
from moltc_vllm.screening.screen import Screen
from moltc_vllm.tasks import Answer
from moltc_vllm.tasks.engine import Engine, EngineError, Pair


@runtime_checkable
class PartExecutor(Protocol):
    """Computes parts of a screen, in this process or on a cluster."""

    def execute(
        self,
        screen: Screen,
        parts: Sequence[int],
        progress: ProgressCallback,
        should_stop: Callable[[], bool],
    ) -> Iterator[int]:
        """Compute parts and write them to the screen's folder.

        Args:
            screen: Screen that the parts belong to.
            parts: Numbers of the parts to compute.
            progress: Callback that receives progress updates.
            should_stop: Function that returns whether to stop; checked before each part is started.
                Parts that were started are finished.

        Yields:
            Number of each part as soon as it is on disk.
        """
        ...


def run_screen(
    screen: Screen,
    executor: PartExecutor,
    progress: ProgressCallback | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Compute all missing parts of a screen.

    Args:
        screen: Screen to run.
        executor: Executor that computes the parts.
        progress: Callback that receives progress updates.
        should_stop: Function that returns whether to stop; checked before each part is started.
            Parts that were started are finished.

    Returns:
        Whether the screen is complete.

    Raises:
        EngineError: If the engine answers a pair twice, or a pair that was not submitted.
        ManifestError: If another process writes to the folder.
        Exception: Any error of the engine; parts completed before it are on disk.
    """
    missing = screen.missing_parts()
    written = executor.execute(screen, missing, progress or NullProgress(), should_stop)
    return sum(1 for _ in written) == len(missing)


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Computes parts in this process.

    Pairs are read only as fast as the engine takes them, and answers are held only until their part
    is complete, so memory does not grow with the number of pairs.

    Attributes:
        engine: Engine that answers the pairs.
        lock: Whether to hold the folder's lock; a Ray actor leaves locking to the driver.
    """

    engine: Engine
    lock: bool = True

    def execute(
        self,
        screen: Screen,
        parts: Sequence[int],
        progress: ProgressCallback,
        should_stop: Callable[[], bool],
    ) -> Iterator[int]:
        """See `PartExecutor`."""
        with lock_folder(screen.folder) if self.lock else nullcontext():
            yield from _PartLoop(screen, parts, progress, should_stop).run(self.engine)


class _OpenPart:
    """A part whose pairs have been read, with the answers received so far."""

    def __init__(self, pairs: list[PairIndex]) -> None:
        self.pairs = pairs
        self.answers: list[Answer | None] = [None] * len(pairs)
        self.unanswered = len(pairs)


class _PartLoop:
    """Reads pairs for an engine, collects its answers and writes the parts.

    Each pair is submitted with its position in the plan as `Pair.row`.
    """

    def __init__(
        self,
        screen: Screen,
        parts: Sequence[int],
        callback: ProgressCallback,
        should_stop: Callable[[], bool],
    ) -> None:
        self._screen, self._parts = screen, parts
        self._callback, self._should_stop = callback, should_stop
        self._open_parts: dict[int, _OpenPart] = {}
        self._written: list[int] = []
        total = len(screen.plan)
        unanswered = sum(screen.unanswered_rows(parts).values())
        self._progress = ScreenProgress(total, total - unanswered)

    def run(self, engine: Engine) -> Iterator[int]:
        """Compute the parts; yield the number of each part once it is written."""
        screen = self._screen
        answers = engine.submit(screen.task.name, self._read_pairs(), screen.question)
        for pair, answer in self._measure_waiting(answers):
            self._add_answer(pair.row, answer)
            yield from self._drain_written()
        self._fail_unanswered()
        yield from self._drain_written()

    def _measure_waiting(
        self, answers: Iterator[tuple[Pair, Answer]]
    ) -> Iterator[tuple[Pair, Answer]]:
        """Yield the answers and measure the time spent waiting for them.

        The engine reads pairs while it computes the next answer, and reading a pair may complete a
        part, so the time of reading and writing is subtracted.
        """
        progress = self._progress
        while True:
            started_at, busy_s = time.perf_counter(), progress.reading_s + progress.writing_s
            result = next(answers, None)
            busy_s = progress.reading_s + progress.writing_s - busy_s
            progress.waiting_s += time.perf_counter() - started_at - busy_s
            if result is None:
                return
            yield result

    def _read_pairs(self) -> Iterator[Pair]:
        """Yield the pairs to submit, and answer the rows that need no engine."""
        screen, progress = self._screen, self._progress
        for part in self._parts:
            if self._should_stop():
                return
            started_at = time.perf_counter()
            start = screen.part_start(part)
            pairs = screen.part_pairs(part)
            kept_answers = screen.kept_answers(part)
            progress.reading_s += time.perf_counter() - started_at
            self._open_parts[part] = _OpenPart(pairs)
            for offset, pair_index in enumerate(pairs):
                started_at = time.perf_counter()
                kept = kept_answers.get(offset)
                item = kept or self._read_pair(start + offset, pair_index)
                progress.reading_s += time.perf_counter() - started_at
                if isinstance(item, Answer):
                    self._add_answer(start + offset, item, is_new=kept is None)
                else:
                    yield item

    def _read_pair(self, position: int, pair_index: PairIndex) -> Pair | Answer:
        """Read a pair's molecules; return a failed answer if they cannot be read."""
        try:
            return Pair(position, self._screen.inputs.molecules(pair_index))
        except UnreadableRowError as error:
            return self._screen.task.failed("error", str(error))

    def _add_answer(self, position: int, answer: Answer, *, is_new: bool = True) -> None:
        """Store the answer of a pair, and write its part if the part is complete."""
        number, offset = divmod(position, self._screen.part_rows)
        part = self._open_parts.get(number)
        if part is None or not 0 <= offset < len(part.pairs) or part.answers[offset] is not None:
            raise EngineError(
                f"the engine answered pair {position} twice, or the pair was never submitted"
            )
        part.answers[offset] = answer
        part.unanswered -= 1
        if is_new:
            self._progress.done += 1
            self._progress.failed += answer.status != "ok"
        if not part.unanswered:
            started_at = time.perf_counter()
            self._write(number)
            self._progress.writing_s += time.perf_counter() - started_at
        self._callback.update(self._progress)

    def _fail_unanswered(self) -> None:
        """Record an error for every pair the engine never answered."""
        error = self._screen.task.failed("error", "the engine returned no answer")
        for number in list(self._open_parts):
            start = self._screen.part_start(number)
            for offset, answer in enumerate(list(self._open_parts[number].answers)):
                if answer is None:
                    self._add_answer(start + offset, error)

    def _write(self, number: int) -> None:
        part = self._open_parts.pop(number)
        answered = [
            AnsweredPair(pair_index, answer)
            for pair_index, answer in zip(part.pairs, part.answers, strict=True)
            if answer is not None
        ]
        table = self._screen.layout.table(answered)
        write_part(self._screen.folder, number, table, self._screen.identity)
        self._written.append(number)

    def _drain_written(self) -> Iterator[int]:
        """Yield the parts written since the last call."""
        while self._written:
            yield self._written.pop()
