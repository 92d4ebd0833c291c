"""Prompt styles: the prompt and answer formats that checkpoints were trained with.

A checkpoint's ``config.json`` names its style. ``moltc`` is the default of new checkpoints; the
styles of the published code are in `moltc_vllm.tasks.published_styles`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from moltc_vllm.tasks.answer import Answer
from moltc_vllm.tasks.confidence import TokenLogprob
from moltc_vllm.tasks.prompts import MOLECULE_TOKEN, molecule_markup
from moltc_vllm.tasks.task import Task
from moltc_vllm.tasks.task_table import TASKS


class ComposedPrompt(NamedTuple):
    """Prompt with one placeholder per molecule.

    Attributes:
        text: Text of the prompt.
        order: Index of the given molecule at each placeholder.
    """

    text: str
    order: tuple[int, ...]


class GenerationLimits(NamedTuple):
    """Limits on the length of an answer, in tokens.

    Attributes:
        max_new_tokens: Maximum number of generated tokens.
        min_new_tokens: Number of tokens that must be generated before the stop token is allowed.
        length_offset: Number added to an answer's length when beam scores are normalized.
    """

    max_new_tokens: int
    min_new_tokens: int = 0
    length_offset: int = 0


class PromptStyle(Protocol):
    """Prompt and answer format of a checkpoint."""

    @property
    def name(self) -> str:
        """Name in ``config.json``."""
        ...

    @property
    def as_written(self) -> bool:
        """Whether molecules are encoded from the SMILES as written, not canonicalized.

        Chirality tags and bond directions depend on the atom order of the SMILES.
        """
        ...

    @property
    def shows_smiles(self) -> bool:
        """Whether prompts contain the SMILES, so that every pair has a prompt of its own."""
        ...

    @property
    def constrained(self) -> bool:
        """Whether answers follow the task's grammar by default; a request can override this."""
        ...

    @property
    def stop(self) -> str | None:
        """Text of the token that ends an answer; None for the tokenizer's end token."""
        ...

    @property
    def chat_template(self) -> str | None:
        """Jinja chat template of the checkpoint's tokenizer; None for the default template."""
        ...

    def tasks(self) -> list[str]:
        """Return the names of the tasks that have a prompt in this style."""
        ...

    def compose(
        self, task: Task, smiles: Sequence[str], question: str | None = None
    ) -> ComposedPrompt:
        """Compose the prompt of a task.

        Args:
            task: Task to compose the prompt for.
            smiles: SMILES as written by the user, one per role of the task.
            question: Question of the user, only for a task that takes one.

        Raises:
            PromptError: If the molecules or the question do not fit the task, or the style has no
                prompt for the task.
        """
        ...

    def compose_chat(self, smiles: Sequence[str], question: str) -> ComposedPrompt | None:
        """Compose the prompt of a chat message that has molecules followed by a text.

        Returns:
            The prompt, or None if the style does not rearrange such a message.
        """
        ...

    def markup(self, smiles: str) -> str:
        """Return the markup that replaces a molecule in a text written by the user."""
        ...

    def tidy(self, text: str) -> str:
        """Normalize a text with placeholders that the user wrote."""
        ...

    def limits(self, task: Task) -> GenerationLimits:
        """Return the length limits of a task's answers."""
        ...

    def clean(self, text: str) -> str:
        """Clean a decoded text."""
        ...

    def read(self, task: Task, text: str, tokens: Sequence[TokenLogprob] = ()) -> Answer:
        """Parse an answer.

        Args:
            task: Task of the answer.
            text: Text returned by `clean`.
            tokens: Generated tokens of the text, for the confidence.
        """
        ...


class MoltcStyle:
    """Molecules, then the question; the answer is a separate line without further text."""

    name = "moltc"
    as_written = False
    shows_smiles = True
    constrained = True
    stop = None
    chat_template = None

    def tasks(self) -> list[str]:
        """Return the names of all tasks."""
        return list(TASKS)

    def compose(
        self, task: Task, smiles: Sequence[str], question: str | None = None
    ) -> ComposedPrompt:
        """Compose the task's own prompt; see `PromptStyle.compose`."""
        return ComposedPrompt(task.prompt(smiles, question), tuple(range(len(smiles))))

    def compose_chat(self, smiles: Sequence[str], question: str) -> ComposedPrompt | None:
        """Return None: chat messages are not rearranged."""
        return None

    def markup(self, smiles: str) -> str:
        """Return the whole SMILES between tags, then the placeholder."""
        return molecule_markup(smiles)

    def tidy(self, text: str) -> str:
        """Return the text unchanged."""
        return text

    def limits(self, task: Task) -> GenerationLimits:
        """Return the task's own limit."""
        return GenerationLimits(task.max_tokens)

    def clean(self, text: str) -> str:
        """Return the text unchanged."""
        return text

    def read(self, task: Task, text: str, tokens: Sequence[TokenLogprob] = ()) -> Answer:
        """Parse the whole text as an answer."""
        return task.parse_answer(text, tokens)


class GraphStyle(MoltcStyle):
    """Variant of `MoltcStyle` whose prompts contain no SMILES, only the placeholders.

    A language model trained from scratch learns more from the molecule embeddings than from the
    SMILES, and the prompt is ten times shorter.
    """

    name = "moltc-graph"
    shows_smiles = False

    def compose(
        self, task: Task, smiles: Sequence[str], question: str | None = None
    ) -> ComposedPrompt:
        """Compose placeholders and the question; see `PromptStyle.compose`."""
        task.check(len(smiles), question)
        text = (question or task.question).strip()
        return ComposedPrompt(f"{MOLECULE_TOKEN * len(smiles)}{text}\n", tuple(range(len(smiles))))

    def compose_chat(self, smiles: Sequence[str], question: str) -> ComposedPrompt:
        """Compose placeholders and the question; the chat template adds the line break."""
        return ComposedPrompt(
            f"{MOLECULE_TOKEN * len(smiles)}{question.strip()}", tuple(range(len(smiles)))
        )

    def markup(self, smiles: str) -> str:
        """Return the placeholder alone."""
        return MOLECULE_TOKEN

    def tidy(self, text: str) -> str:
        """Remove blanks around placeholders, which training prompts do not have."""
        return _BLANKS.sub(MOLECULE_TOKEN, text)


_BLANKS = re.compile(rf"[ \t]*{re.escape(MOLECULE_TOKEN)}[ \t]*")

MOLTC_STYLE = MoltcStyle()
GRAPH_STYLE = GraphStyle()


def uses_grammar(style: PromptStyle, constrained: bool | None, beams: int) -> bool:
    """Return whether answers follow their task's grammar.

    Args:
        style: Prompt style of the checkpoint.
        constrained: Value given by the user, or None for the style's default.
        beams: Number of beams, at least 1. Beam search is not compatible with a grammar.

    Raises:
        ValueError: If ``beams`` is less than 1, or greater than 1 with ``constrained`` set.
    """
    if beams < 1:
        raise ValueError(f"beams must be at least 1, not {beams}")
    if beams == 1:
        return style.constrained if constrained is None else constrained
    if constrained:
        raise ValueError("beam search cannot follow a grammar: use one beam or constrained=False")
    return False
