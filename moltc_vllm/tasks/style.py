"""Prompt styles: how a checkpoint was asked in its training, and has to be asked ever after.

``moltc`` is ours and the default of new checkpoints. The published ones are in
`moltc_vllm.tasks.published`. A checkpoint's ``config.json`` names its style.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from moltc_vllm.tasks.answer import Answer
from moltc_vllm.tasks.confidence import TokenLogprob
from moltc_vllm.tasks.prompts import MOLECULE_TOKEN, molecule_markup
from moltc_vllm.tasks.table import TASKS
from moltc_vllm.tasks.task import Task


class Composed(NamedTuple):
    """A prompt with one placeholder per molecule.

    ``order`` says which of the given molecules stands at each placeholder.
    """

    text: str
    order: tuple[int, ...]


class Limits(NamedTuple):
    """How long an answer may be, and must be, in tokens."""

    max_new_tokens: int
    min_new_tokens: int = 0  # the stop token is not among the first so many
    counted_before: int = 0  # tokens that count in the lengths of beam scores besides the answer's


class PromptStyle(Protocol):
    """Everything about prompts and answers in which checkpoints differ."""

    @property
    def name(self) -> str:
        """Its name in ``config.json``."""
        ...

    @property
    def as_written(self) -> bool:
        """Whether the encoder sees the molecule as its SMILES is written, not the canonical one.

        Chirality tags and bond directions depend on it.
        """
        ...

    @property
    def constrained(self) -> bool:
        """Whether answers are held to the task's grammar, unless a request says."""
        ...

    @property
    def stop(self) -> str | None:
        """Text of the token that ends an answer; ``None``: the tokenizer's end token."""
        ...

    @property
    def chat_template(self) -> str | None:
        """Jinja template of the checkpoint's tokenizer; ``None``: ours."""
        ...

    def tasks(self) -> list[str]:
        """Names of the tasks that can be asked in this style."""
        ...

    def compose(self, task: Task, smiles: Sequence[str], question: str | None = None) -> Composed:
        """Write the prompt of a task about some molecules.

        Args:
            task: What is asked.
            smiles: One per role of the task, as the user wrote them.
            question: Only for a task that takes one.

        Raises:
            PromptError: If they do not fit the task, or the style cannot ask it.
        """
        ...

    def compose_chat(self, smiles: Sequence[str], question: str) -> Composed | None:
        """Write the prompt of a chat message of molecules followed by a text.

        ``None`` where the style has no form of its own for it: everything stays in its place.
        """
        ...

    def markup(self, smiles: str) -> str:
        """A molecule in a text that the user wrote: its SMILES, tags and placeholder."""
        ...

    def tidy(self, text: str) -> str:
        """A text that the user wrote, with placeholders in it, as the style writes it."""
        ...

    def limits(self, task: Task) -> Limits:
        """Length of a task's answers."""
        ...

    def clean(self, text: str) -> str:
        """A decoded text as the style's users expect it."""
        ...

    def read(self, task: Task, text: str, tokens: Sequence[TokenLogprob] = ()) -> Answer:
        """The typed answer in a text that `clean` gave, generated as ``tokens``."""
        ...


class OwnStyle:
    """Molecules, then the question; the answer is a line of its own and nothing else."""

    name = "moltc"
    as_written = False
    constrained = True
    stop = None
    chat_template = None

    def tasks(self) -> list[str]:
        """All of them."""
        return list(TASKS)

    def compose(self, task: Task, smiles: Sequence[str], question: str | None = None) -> Composed:
        """Write the task's own prompt; see `PromptStyle.compose`."""
        return Composed(task.prompt(smiles, question), tuple(range(len(smiles))))

    def compose_chat(self, smiles: Sequence[str], question: str) -> Composed | None:
        """Everything stays in its place."""
        return None

    def markup(self, smiles: str) -> str:
        """The whole SMILES between tags, then the placeholder."""
        return molecule_markup(smiles)

    def tidy(self, text: str) -> str:
        """The text as it is."""
        return text

    def limits(self, task: Task) -> Limits:
        """The task's own."""
        return Limits(task.max_tokens)

    def clean(self, text: str) -> str:
        """The text as the model wrote it."""
        return text

    def read(self, task: Task, text: str, tokens: Sequence[TokenLogprob] = ()) -> Answer:
        """Read the whole text, which has to be an answer."""
        return task.answer(text, tokens)


class GraphStyle(OwnStyle):
    """As `OwnStyle`, but a molecule is its graph alone: no SMILES stands in the prompt.

    A language model trained from scratch learns more from a molecule's tokens than from its
    letters, and a prompt is a tenth as long.
    """

    name = "moltc-graph"

    def compose(self, task: Task, smiles: Sequence[str], question: str | None = None) -> Composed:
        """Write placeholders and the question; see `PromptStyle.compose`."""
        task.check(len(smiles), question)
        asked = (question or task.question).strip()
        return Composed(f"{MOLECULE_TOKEN * len(smiles)}{asked}\n", tuple(range(len(smiles))))

    def compose_chat(self, smiles: Sequence[str], question: str) -> Composed:
        """As `compose`; the chat template ends the line."""
        return Composed(
            f"{MOLECULE_TOKEN * len(smiles)}{question.strip()}", tuple(range(len(smiles)))
        )

    def markup(self, smiles: str) -> str:
        """The placeholder."""
        return MOLECULE_TOKEN

    def tidy(self, text: str) -> str:
        """Without blanks around placeholders: the model has not seen any there."""
        return _BLANKS.sub(MOLECULE_TOKEN, text)


_BLANKS = re.compile(rf"[ \t]*{re.escape(MOLECULE_TOKEN)}[ \t]*")

OWN_STYLE = OwnStyle()
GRAPH_STYLE = GraphStyle()


def held_to_grammar(style: PromptStyle, constrained: bool | None, beams: int) -> bool:
    """Whether answers are held to their task's grammar.

    Raises:
        ValueError: If that is wanted together with beams.
    """
    if beams < 1:
        raise ValueError(f"{beams} beams: at least 1 is needed")
    if beams == 1:
        return style.constrained if constrained is None else constrained
    if constrained:
        raise ValueError("beams search among all texts: they cannot be held to a grammar")
    return False
