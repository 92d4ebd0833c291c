"""Instructions: what is asked about some molecules, and the two levels of the answer.

Upper level: the key properties of the first molecule, then of the second. Then the interaction, of
a number in two steps, which are the lower level: its interval, then its value.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from moltc_vllm.data.dataset import Row, Target, written
from moltc_vllm.data.intervals import Intervals
from moltc_vllm.data.properties import Property, statement
from moltc_vllm.tasks import Number, Task
from moltc_vllm.tasks.number import VALUE_MARK

Chain = Literal["both", "upper", "lower", "none"]
"""Which levels stand in the text that a model is trained to answer."""

UPPER_END = "\n"
"""Between the properties and the answer: the answer is the last line, and a line of its own."""

PAIRS, PAIR_TASK = "pairs", "pair_properties"

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
    """One record.

    Attributes:
        id: Source and number.
        source: Key of `moltc_vllm.data.datasets.DATASETS`, or ``pairs``.
        split: ``train``, ``valid`` or ``test``.
        task: Key of the task table.
        smiles: One per role of the task, as in the data.
        question: The task's own.
        properties: Those told of each molecule; an empty list if none is known.
        upper: The sentences about them; empty if there are none.
        answer: The task's own text, with both steps of a number.
        text: What a model is trained to answer. Its last line is the answer, if a chain of thought
            has the lower level; without it a number is told alone (`value_text`), which the
            task's parser does not read.
        target: What was measured, as `Row.target` has it; ``None`` where nothing was.
        number: Row of the source's file, from 1; of random pairs, which draw it was.
        unseen: How many molecules no train record has; ``None`` where that was not asked.
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
        """The record as `SCHEMA` has it; the target is a JSON text, as its type is the task's."""
        return {
            "id": self.id,
            "source": self.source,
            "split": self.split,
            "task": self.task,
            "smiles": list(self.smiles),
            "question": self.question,
            "properties": [[one._asdict() for one in known] for known in self.properties],
            "upper": self.upper,
            "answer": self.answer,
            "text": self.text,
            "target": None if self.target is None else json.dumps(self.target),
            "number": self.number,
            "unseen": self.unseen,
        }


def instruct(
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
        task: Whose question and answer it has.
        source: Of the row.
        split: Of the row.
        row: With a target.
        properties: Of each molecule, what is to be told.
        chain: Which levels ``text`` has.
        unseen: How many of its molecules are unseen.

    Raises:
        DataError: If the task cannot answer the target.
    """
    answer = written(task, row, source)
    upper = statement(task.roles, properties)
    told = answer
    if isinstance(task.kind, Number) and chain in ("upper", "none"):
        told = value_text(answer)
    text = f"{upper}{UPPER_END}{told}" if upper and chain in ("both", "upper") else told
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


def instruct_pair(
    task: Task, split: str, row: Row, properties: Sequence[Sequence[Property]]
) -> Instruction:
    """Make the record of two molecules that have nothing to do with one another.

    Their properties are the answer itself, so that there are no levels in it.

    Raises:
        ValueError: If nothing is known of them.
    """
    answer = task.write(statement(task.roles, properties))
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
    """A number's answer without the interval, for ablations.

    ``The solvation Gibbs free energy of these two molecules is -4.27;``
    """
    head, _, rest = answer.partition(" is above ")
    return head + rest.partition(VALUE_MARK)[2]


def with_intervals(task: Task, intervals: Intervals) -> Task:
    """The task with other intervals; what it writes, the task itself can read."""
    if not isinstance(task.kind, Number):
        return task
    kind = replace(task.kind, interval_width=intervals.width, scale=intervals.scale)
    return replace(task, kind=kind)
