"""Tasks: questions about molecules, their prompts, and the parsing of answers."""

from moltc_vllm.tasks.answer import Answer, FailedStatus, ParsedFields, Status, UnparsedError
from moltc_vllm.tasks.answer_kinds import AnswerKind, Choice, Label, Terms, Text
from moltc_vllm.tasks.confidence import TokenLogprob
from moltc_vllm.tasks.ddi_types import DDI_TYPES
from moltc_vllm.tasks.grammar import Grammar
from moltc_vllm.tasks.number import Number
from moltc_vllm.tasks.prompt_style import (
    ComposedPrompt,
    GenerationLimits,
    PromptStyle,
    uses_grammar,
)
from moltc_vllm.tasks.prompts import (
    MOLECULE_END,
    MOLECULE_START,
    MOLECULE_TOKEN,
    RESERVED_TOKENS,
    PromptError,
    molecule_markup,
)
from moltc_vllm.tasks.style_registry import STYLES, get_style
from moltc_vllm.tasks.task import Task
from moltc_vllm.tasks.task_table import (
    TASKS,
    UnknownTaskError,
    find_task_by_question,
    get_task,
    resolve_task,
)

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
    "ComposedPrompt",
    "FailedStatus",
    "GenerationLimits",
    "Grammar",
    "Label",
    "Number",
    "ParsedFields",
    "PromptError",
    "PromptStyle",
    "Status",
    "Task",
    "Terms",
    "Text",
    "TokenLogprob",
    "UnknownTaskError",
    "UnparsedError",
    "find_task_by_question",
    "get_style",
    "get_task",
    "molecule_markup",
    "resolve_task",
    "uses_grammar",
]
