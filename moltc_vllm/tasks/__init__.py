"""Tasks: what is asked about molecules, in which words, and how the answer is read."""

from moltc_vllm.tasks.answer import Answer, FailedStatus, Fields, Status, UnparsedError
from moltc_vllm.tasks.confidence import TokenLogprob
from moltc_vllm.tasks.ddi_types import DDI_TYPES
from moltc_vllm.tasks.grammar import Grammar
from moltc_vllm.tasks.kinds import AnswerKind, Choice, Label, Terms, Text
from moltc_vllm.tasks.number import Number
from moltc_vllm.tasks.prompts import (
    MOLECULE_END,
    MOLECULE_START,
    MOLECULE_TOKEN,
    RESERVED_TOKENS,
    PromptError,
    molecule_markup,
)
from moltc_vllm.tasks.style import Composed, Limits, PromptStyle, held_to_grammar
from moltc_vllm.tasks.styles import STYLES, get_style
from moltc_vllm.tasks.table import TASKS, UnknownTaskError, get_task, task_asked_in
from moltc_vllm.tasks.task import Task

__all__ = [
    "DDI_TYPES",
    "MOLECULE_END",
    "MOLECULE_START",
    "MOLECULE_TOKEN",
    "RESERVED_TOKENS",
    "STYLES",
    "TASKS",
    "Answer",
    "AnswerKind",
    "Choice",
    "Composed",
    "FailedStatus",
    "Fields",
    "Grammar",
    "Label",
    "Limits",
    "Number",
    "PromptError",
    "PromptStyle",
    "Status",
    "Task",
    "Terms",
    "Text",
    "TokenLogprob",
    "UnknownTaskError",
    "UnparsedError",
    "get_style",
    "get_task",
    "held_to_grammar",
    "molecule_markup",
    "task_asked_in",
]
