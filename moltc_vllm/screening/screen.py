"""A screen that is ready to run, and the state of its output folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from moltc_vllm.screening.answer_columns import STATUS
from moltc_vllm.screening.inputs import PairTables, UnreadableRowError
from moltc_vllm.screening.parts import (
    PartLayout,
    is_written,
    mark_for_retry,
    needs_retry,
    read_part,
    read_statuses,
)
from moltc_vllm.screening.plan import PairIndex, Plan
from moltc_vllm.tasks import Answer, Task

_ERROR_STATUS = "error"
"""Status of a failed pair that may succeed if it is submitted again."""


@dataclass(frozen=True, slots=True)
class Screen:
    """A task to answer for many pairs, and the folder that receives the answers.

    Attributes:
        folder: Folder of the parts.
        task: Task to answer for each pair.
        question: Question of the user, for a task that takes one.
        plan: Pairs in processing order.
        inputs: Tables that hold the molecules.
        layout: Columns of the parts.
        part_rows: Number of pairs per part.
        identity: Checksum of all settings, see `moltc_vllm.screening.manifest.identity_of`.
    """

    folder: Path
    task: Task
    question: str | None
    plan: Plan
    inputs: PairTables
    layout: PartLayout
    part_rows: int
    identity: str

    @property
    def part_count(self) -> int:
        """Number of parts of the complete output."""
        return -(-len(self.plan) // self.part_rows)

    def part_start(self, part: int) -> int:
        """Return the position of a part's first pair in the plan."""
        return part * self.part_rows

    def part_size(self, part: int) -> int:
        """Return the number of rows of a part; the last part may be shorter."""
        return min(self.part_rows, len(self.plan) - self.part_start(part))

    def part_pairs(self, part: int) -> list[PairIndex]:
        """Return the pairs of a part in order."""
        start = self.part_start(part)
        return list(self.plan.slice(start, start + self.part_size(part)))

    def missing_parts(self, among: Iterable[int] | None = None) -> list[int]:
        """List the parts to compute: those not written, and those marked for retry.

        Args:
            among: Parts to check; default: all.
        """
        return [
            part
            for part in (range(self.part_count) if among is None else among)
            if not self._is_written(part) or needs_retry(self.folder, part)
        ]

    def unanswered_rows(self, parts: Iterable[int]) -> dict[int, int]:
        """Count the rows of each missing part that still need an answer."""
        return {
            part: read_statuses(self.folder, part).count(_ERROR_STATUS)
            if self._is_written(part)
            else self.part_size(part)
            for part in parts
        }

    def mark_errors_for_retry(self) -> None:
        """Mark every part with retryable errors, so that it is computed again.

        Only failed pairs are then submitted again; all other rows are kept. Rows whose input cannot
        be read would fail again, so a part with no other errors is not marked.
        """
        for part in range(self.part_count):
            if self._is_written(part) and self._has_retryable_error(part):
                mark_for_retry(self.folder, part)

    def kept_answers(self, part: int) -> dict[int, Answer]:
        """Return the answers that a recomputed part keeps, by offset in the part."""
        if not self._is_written(part):
            return {}
        rows = read_part(self.folder, part).to_pylist()
        return {
            offset: self.layout.answer(row)
            for offset, row in enumerate(rows)
            if row[STATUS] != _ERROR_STATUS
        }

    def _is_written(self, part: int) -> bool:
        return is_written(self.folder, part, self.part_size(part), self.identity)

    def _has_retryable_error(self, part: int) -> bool:
        statuses = read_statuses(self.folder, part)
        if _ERROR_STATUS not in statuses:
            return False
        return any(
            status == _ERROR_STATUS and self._is_readable(pair_index)
            for status, pair_index in zip(statuses, self.part_pairs(part), strict=True)
        )

    def _is_readable(self, pair_index: PairIndex) -> bool:
        try:
            self.inputs.molecules(pair_index)
        except UnreadableRowError:
            return False
        return True
