"""Instructions: a question about molecules, and an answer text with two levels of reasoning.

The upper level states the properties of the first molecule, then those of the second. The answer
follows; that of a number task has two steps, the interval and the value, which are the lower level.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from moltc_vllm.data.dataset import Row, Target, write_answer
from moltc_vllm.data.intervals import Intervals
from moltc_vllm.data.properties import Property, format_properties
from moltc_vllm.tasks import Number, Task
from moltc_vllm.tasks.number import VALUE_MARK

Chain = Literal["both", "upper", "lower", "none"]
"""Levels in the text that a model is trained to generate."""

UPPER_SEPARATOR = "\n"
"""Separator between the properties and the answer, which is the last line of the text."""

PAIRS, PAIR_TASK = "pairs", "pair_properties"
"""Source and task of random pairs, which belong to no data set."""

_PROPERTY = pa.struct(
    [("name", pa.string()), ("value", pa.float64()), ("unit", pa.string()), ("text", pa.string())]
)

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("task", pa.string()),
        ("smiles", pa.list_(pa.string())),
        ("question", pa.string()),
        ("properties", pa.list_(pa.list_(_PROPERTY))),
        ("upper", pa.string()),
        ("answer", pa.string()),
        ("text", pa.string()),
        ("target", pa.string()),
        ("number", pa.int32()),
        ("unseen", pa.int8()),
    ]
)


@dataclass(frozen=True, slots=True)
class Instruction:
    """A record of the instruction data.

    Attributes:
        id: Source and number, separated by a colon.
        source: Key of `moltc_vllm.data.dataset_registry.DATASETS`, or ``pairs``.
        split: ``train``, ``valid`` or ``test``.
        task: Name of the task.
        smiles: SMILES as in the data, one per role of the task.
        question: Question of the task.
        properties: Properties in the text, per molecule; may be empty.
        upper: Sentences about the properties; may be empty.
        answer: Text of the task's answer, with both steps of a number.
        text: Text that a model is trained to generate. With the lower level, its last line is
            ``answer``; without it, the last line of a number task has the value alone
            (`value_text`), which the task's parser does not accept.
        target: Measured value, as in `Row.target`; ``None`` for random pairs.
        number: Row number in the file of the data set, or index of a random pair; from 1.
        unseen: Number of molecules that no train record contains; ``None`` if the split is not by
            molecule or scaffold.
    """

    id: str
    source: str
    split: str
    task: str
    smiles: tuple[str, ...]
    question: str
    properties: tuple[tuple[Property, ...], ...]
    upper: str
    answer: str
    text: str
    target: Target | None
    number: int
    unseen: int | None = None

    def as_row(self) -> dict[str, Any]:
        """Return the record as a row of `SCHEMA`; the target, whose type varies, becomes JSON."""
        return {
            "id": self.id,
            "source": self.source,
            "split": self.split,
            "task": self.task,
            "smiles": list(self.smiles),
            "question": self.question,
            "properties": [
                [item._asdict() for item in molecule_properties]
                for molecule_properties in self.properties
            ],
            "upper": self.upper,
            "answer": self.answer,
            "text": self.text,
            "target": None if self.target is None else json.dumps(self.target),
            "number": self.number,
            "unseen": self.unseen,
        }


def make_instruction(
    task: Task,
    source: str,
    split: str,
    row: Row,
    properties: Sequence[Sequence[Property]],
    *,
    chain: Chain = "both",
    unseen: int | None = None,
) -> Instruction:
    """Make the record of a measured row.

    Args:
        task: Task with the question and the answer text.
        source: Name of the data set.
        split: Split of the row.
        row: Row with a target.
        properties: Properties to state, per molecule.
        chain: Levels in ``text``.
        unseen: Number of unseen molecules in the row.

    Raises:
        DataError: If the task cannot express the target.
    """
    answer = write_answer(task, row, source)
    upper = format_properties(task.roles, properties)
    last_line = answer
    if isinstance(task.kind, Number) and chain in ("upper", "none"):
        last_line = value_text(answer)
    has_upper = upper and chain in ("both", "upper")
    text = f"{upper}{UPPER_SEPARATOR}{last_line}" if has_upper else last_line
    return Instruction(
        id=f"{source}:{row.number}",
        source=source,
        split=split,
        task=task.name,
        smiles=row.molecules,
        question=task.question,
        properties=tuple(map(tuple, properties)),
        upper=upper,
        answer=answer,
        text=text,
        target=row.target,
        number=row.number,
        unseen=unseen,
    )


def make_pair_instruction(
    task: Task, split: str, row: Row, properties: Sequence[Sequence[Property]]
) -> Instruction:
    """Make the record of a random pair, whose answer is the properties of the molecules.

    Args:
        task: Task with the question.
        split: Split of the record.
        row: Row with the pair; it has no target.
        properties: Properties to state, per molecule.

    Raises:
        ValueError: If there are no properties.
    """
    answer = task.write(format_properties(task.roles, properties))
    return Instruction(
        id=f"{PAIRS}:{row.number}",
        source=PAIRS,
        split=split,
        task=task.name,
        smiles=row.molecules,
        question=task.question,
        properties=tuple(map(tuple, properties)),
        upper="",
        answer=answer,
        text=answer,
        target=None,
        number=row.number,
    )


def value_text(answer: str) -> str:
    """Remove the interval from the answer of a number task, for ablations.

    The result is, for example, ``The solvation Gibbs free energy of these two molecules is -4.27;``
    """
    head, _, rest = answer.partition(" is above ")
    return head + rest.partition(VALUE_MARK)[2]


def with_intervals(task: Task, intervals: Intervals) -> Task:
    """Return a number task with other intervals, or any other task unchanged.

    The original task parses the answers that the returned one writes.
    """
    if not isinstance(task.kind, Number):
        return task
    kind = replace(task.kind, interval_width=intervals.width, scale=intervals.scale)
    return replace(task, kind=kind)
