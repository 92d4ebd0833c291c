"""Columns of a screen's parts that hold the answers.

The manifest records the columns, so that a screen of an earlier version is resumed with its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from moltc_vllm.tasks import Answer, Choice, Number, Task, Terms

STATUS, ERROR, CONFIDENCE, TEXT = "status", "error", "confidence", "text"
VALUE, UNIT, LABEL, ITEMS = "value", "unit", "label", "items"
SUBJECT, OBJECT = "subject", "object"
STD, LOW, HIGH, FAMILIARITY = "std", "low", "high", "familiarity"
NOTES = "notes"
LIKELIEST_LOW, LIKELIEST_HIGH = "likeliest_low", "likeliest_high"

_TYPES: dict[str, pa.DataType] = {
    STATUS: pa.string(),
    ERROR: pa.string(),
    LABEL: pa.string(),
    SUBJECT: pa.string(),
    OBJECT: pa.string(),
    VALUE: pa.float64(),
    UNIT: pa.string(),
    STD: pa.float64(),
    LOW: pa.float64(),
    HIGH: pa.float64(),
    LIKELIEST_LOW: pa.float64(),
    LIKELIEST_HIGH: pa.float64(),
    ITEMS: pa.list_(pa.string()),
    FAMILIARITY: pa.string(),
    CONFIDENCE: pa.float64(),
    NOTES: pa.string(),
    TEXT: pa.string(),
}

ANSWER_NAMES = frozenset(_TYPES)
"""Names of the answer columns that any screen may have."""

_NOTE_SEPARATOR = "; "
_CONFIDENCE_DIGITS = 6  # further digits depend on the batch in which a pair was computed


class AnswerColumns:
    """Answer columns of a screen, and the conversion of answers to their cells and back.

    Args:
        task: Task of the screen.
        names: Names of the columns in order; default: those that this version writes.
        text: Whether the generated text is kept; for default names only.

    Attributes:
        names: Names of the columns in order.

    Raises:
        ValueError: If a name is unknown, as in a screen of a later version.
    """

    def __init__(
        self, task: Task, names: Iterable[str] | None = None, *, text: bool = False
    ) -> None:
        self._task = task
        self.names = tuple(_current_names(task, text) if names is None else names)
        if unknown := [name for name in self.names if name not in _TYPES]:
            raise ValueError(f"unknown answer columns {', '.join(unknown)}: use a newer version")

    @classmethod
    def of_version_0_1(cls, task: Task, *, text: bool) -> AnswerColumns:
        """Return the columns of version 0.1, whose low and high are the likeliest interval."""
        return cls(task, _first_names(task, text))

    @property
    def types(self) -> dict[str, pa.DataType]:
        """Arrow type of each column."""
        return {name: _TYPES[name] for name in self.names}

    def cells(self, answer: Answer) -> list[Any]:
        """Return the cells of an answer, in the order of `names`."""
        likeliest = answer.likeliest_interval or (None, None)
        low, high = (answer.low, answer.high) if self._has_likeliest else likeliest
        confidence = (
            None if answer.confidence is None else round(answer.confidence, _CONFIDENCE_DIGITS)
        )
        values = {
            STATUS: answer.status,
            ERROR: answer.error,
            LABEL: answer.label,
            SUBJECT: answer.subject,
            OBJECT: answer.object,
            VALUE: answer.value,
            UNIT: answer.unit,
            STD: answer.std,
            LOW: low,
            HIGH: high,
            LIKELIEST_LOW: likeliest[0],
            LIKELIEST_HIGH: likeliest[1],
            ITEMS: answer.items,
            FAMILIARITY: answer.familiarity,
            CONFIDENCE: confidence,
            NOTES: _NOTE_SEPARATOR.join(answer.notes) or None,
            TEXT: answer.text,
        }
        return [values[name] for name in self.names]

    def answer(self, row: Mapping[str, Any]) -> Answer:
        """Return the answer in a row of a part.

        Args:
            row: Values by column name; further columns are ignored.
        """
        cells = {name: row[name] for name in self.names}
        status, error, text = cells[STATUS], cells[ERROR], cells.get(TEXT)
        if status != "ok":
            return self._task.failed(status, error, text)
        label, items, notes = cells.get(LABEL), cells.get(ITEMS), cells.get(NOTES)
        low, high = cells.get(LOW), cells.get(HIGH)
        likeliest: tuple[Any, Any] = cells.get(LIKELIEST_LOW), cells.get(LIKELIEST_HIGH)
        if not self._has_likeliest:
            low, high, likeliest = None, None, (low, high)
        return Answer(
            task=self._task.name,
            status="ok",
            value=cells.get(VALUE),
            unit=cells.get(UNIT),
            std=cells.get(STD),
            low=low,
            high=high,
            likeliest_interval=None if likeliest[0] is None else likeliest,
            label=label,
            label_id=None if label is None else self._label_ids()[label],
            subject=cells.get(SUBJECT),
            object=cells.get(OBJECT),
            items=None if items is None else tuple(items),
            familiarity=cells.get(FAMILIARITY),
            confidence=cells[CONFIDENCE],
            notes=tuple(notes.split(_NOTE_SEPARATOR)) if notes else (),
            text=text,
        )

    @property
    def _has_likeliest(self) -> bool:
        return LIKELIEST_LOW in self.names

    def _label_ids(self) -> dict[str, int]:
        labels = self._task.kind.labels if isinstance(self._task.kind, Choice) else ()
        return {label.name: label.id for label in labels}


def _current_names(task: Task, text: bool) -> list[str]:
    names = _first_names(task, text)
    if isinstance(task.kind, Number):
        names[names.index(LOW) : names.index(LOW)] = [STD]
        after = names.index(HIGH) + 1
        names[after:after] = [LIKELIEST_LOW, LIKELIEST_HIGH]
    if task.directed_labels:
        after = names.index(LABEL) + 1
        names[after:after] = [SUBJECT, OBJECT]
    before = names.index(CONFIDENCE)
    names[before : before + 1] = [FAMILIARITY, CONFIDENCE, NOTES]
    return names


def _first_names(task: Task, text: bool) -> list[str]:
    names = [STATUS, ERROR]
    match task.kind:
        case Choice():
            names += [LABEL]
        case Number():
            names += [VALUE, UNIT, LOW, HIGH]
        case Terms():
            names += [ITEMS]
    names += [CONFIDENCE]
    if text or not isinstance(task.kind, Choice | Number | Terms):
        names += [TEXT]
    return names
