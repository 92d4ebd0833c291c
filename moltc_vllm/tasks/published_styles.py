"""Prompt styles of the published MolTC code, with its post-processing of answers.

There are two sets of templates: ``moltc-2024`` is that of the published code, ``moltc-2024-early``
that of its state before 24 May 2024, with which the first released checkpoints were trained.

Source: MolTC's data and evaluation code (Fang et al. 2024); docs/concepts/published-model.md,
sections "Prompt templates" and "Generation".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from moltc_vllm.tasks.answer import Answer
from moltc_vllm.tasks.answer_kinds import Choice
from moltc_vllm.tasks.confidence import TokenLogprob, tokens_between
from moltc_vllm.tasks.number import Number
from moltc_vllm.tasks.prompt_style import ComposedPrompt, GenerationLimits
from moltc_vllm.tasks.prompts import (
    MOLECULE_END,
    MOLECULE_START,
    MOLECULE_TOKEN,
    PromptError,
    check_question,
    molecule_markup,
)
from moltc_vllm.tasks.task import Task
from moltc_vllm.tasks.task_table import TASKS

MOLTC_2024, MOLTC_2024_EARLY = "moltc-2024", "moltc-2024-early"
MOLECULE_PROMPT = f"{MOLECULE_START}{{}}{MOLECULE_END}. "
"""Value of ``--prompt`` in the published fine-tuning commands, with its trailing blank."""

MAX_SMILES_CHARACTERS = 128
"""Maximum number of SMILES characters in the text; the graph is that of the whole molecule."""

# Published lengths include the `<s>` before the answer, which is not an input of the model.
_MAX_LENGTH, _MIN_LENGTH = 256, 8
_MAX_LENGTHS = {"ddi": 30, "ddi_type": 30, "ddi_side_effects": 30, "solvation": 40}

_SIDE_EFFECTS = "What are the side effects of these two drugs?"
_QUESTIONS = {
    "ddi": _SIDE_EFFECTS,
    "ddi_type": _SIDE_EFFECTS,
    "ddi_side_effects": _SIDE_EFFECTS,
    "solvation": "what is the solvation Gibbs free energy of this pair of molecules?",
}
_SOLVENT_FIRST = ("solvation", "solubility")
_PAIR_DESCRIPTION, _MOLECULE_DESCRIPTION = "pair_properties", "caption"

_EARLY_LINKS = {
    "solute": "The front is solvent, followed by solute.",
    "chromophore": "The front is the chromophore, followed by the solvent.",
}
_EARLY_LINK = "The front is the first molecule, followed by the second molecule."

# Replacements of transformers' clean-up of tokenization spaces, in the order it applies them.
_SPACES = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


@dataclass(frozen=True, slots=True)
class PublishedStyle:
    """Published prompt templates, and parsing of answers that are followed by further text.

    Solvation and solubility prompts name the solvent first. Molecules are encoded as written.

    Attributes:
        name: ``moltc-2024`` or ``moltc-2024-early``.
        molecule_prompt: Template for one molecule's text (the published ``--prompt``), with
            ``{}`` for the SMILES between the two tags.
    """

    name: str
    molecule_prompt: str = MOLECULE_PROMPT

    def __post_init__(self) -> None:
        if self.name not in (MOLTC_2024, MOLTC_2024_EARLY):
            raise ValueError(f"unknown prompt style {self.name!r}")
        parts = self.molecule_prompt.split(f"{MOLECULE_START}{{}}{MOLECULE_END}")
        if len(parts) != 2 or any(mark in "".join(parts) for mark in ("{", "}", MOLECULE_TOKEN)):
            raise ValueError(
                f"the molecule prompt {self.molecule_prompt!r} needs one {{}} between "
                f"{MOLECULE_START} and {MOLECULE_END}, and no other braces or {MOLECULE_TOKEN}"
            )

    @property
    def as_written(self) -> bool:
        """True: the published code does not canonicalize SMILES."""
        return True

    @property
    def shows_smiles(self) -> bool:
        """True: each molecule's placeholders follow its SMILES."""
        return True

    @property
    def constrained(self) -> bool:
        """False: the published code does not constrain decoding."""
        return False

    @property
    def stop(self) -> str:
        """Line break; pair tasks were trained without it, so most answers reach their limit."""
        return "\n"

    @property
    def chat_template(self) -> str:
        """Template that concatenates messages; a line break would be the stop token."""
        return "{%- for message in messages -%}{{ message['content'] }}{%- endfor -%}"

    def tasks(self) -> list[str]:
        """Return the names of the tasks with two molecules, and ``caption``.

        Tasks with a fallback are newer than the published models, which know the fallback alone.
        """
        return [
            name
            for name, task in TASKS.items()
            if task.fallback is None
            and (len(task.roles) == 2 or task.any_molecules or name == _MOLECULE_DESCRIPTION)
        ]

    def compose(
        self, task: Task, smiles: Sequence[str], question: str | None = None
    ) -> ComposedPrompt:
        """Fill in the published template; see `PromptStyle.compose`."""
        task.check(len(smiles), question)
        if task.name not in self.tasks():
            raise PromptError(f"task {task.name!r} has no prompt in style {self.name!r}")
        if task.name == _MOLECULE_DESCRIPTION:
            return ComposedPrompt(self._molecule(smiles[0]), (0,))
        if len(smiles) != 2:
            raise PromptError(f"prompt style {self.name!r} takes two molecules, not {len(smiles)}")
        order = (1, 0) if task.name in _SOLVENT_FIRST else (0, 1)
        first, second = (self._molecule(smiles[index]) for index in order)
        if task.name == _PAIR_DESCRIPTION:
            return ComposedPrompt(self._description(first, second), order)
        text = (question or _QUESTIONS.get(task.name, task.question)).strip()
        return ComposedPrompt(self._question(first, second, text, task.roles), order)

    def compose_chat(self, smiles: Sequence[str], question: str) -> ComposedPrompt | None:
        """Fill in the published template for two molecules and a question, else return None."""
        if len(smiles) != 2 or not question.strip():
            return None
        check_question(question)
        first, second = map(self._molecule, smiles)
        return ComposedPrompt(self._question(first, second, question.strip()), (0, 1))

    def markup(self, smiles: str) -> str:
        """Return the truncated SMILES between tags, then the placeholder."""
        return molecule_markup(smiles[:MAX_SMILES_CHARACTERS])

    def tidy(self, text: str) -> str:
        """Return the text unchanged."""
        return text

    def limits(self, task: Task) -> GenerationLimits:
        """Return the published limits, without the ``<s>`` they include."""
        return self.limits_from_lengths(_MAX_LENGTHS.get(task.name, _MAX_LENGTH), _MIN_LENGTH)

    @staticmethod
    def limits_from_lengths(max_length: int, min_length: int) -> GenerationLimits:
        """Convert the published ``--max_len`` and ``--min_len``, which count ``<s>``."""
        return GenerationLimits(max_length - 1, max(min_length - 1, 0), length_offset=1)

    def clean(self, text: str) -> str:
        """Strip the text and remove the blanks that transformers' clean-up removes."""
        for spaced, tight in _SPACES:
            text = text.replace(spaced, tight)
        return text.strip()

    def read(self, task: Task, text: str, tokens: Sequence[TokenLogprob] = ()) -> Answer:
        """Parse the first answer in the text; other text may precede and follow it."""
        start, end = _answer_span(task, text)
        answer = task.parse_answer(text[start:end], tokens_between(text, tokens, start, end))
        return answer.model_copy(update={"text": text})

    def _molecule(self, smiles: str) -> str:
        return self.molecule_prompt.replace(
            f"{MOLECULE_START}{{}}{MOLECULE_END}", self.markup(smiles)
        )

    def _description(self, first: str, second: str) -> str:
        if self.name == MOLTC_2024:
            return f"</s> {first} </s> </s> {second} </s>"
        return (
            f"{first},The front is the first molecule, followed by the second molecule:{second}."
            "Please provide the biochemical properties of the two molecules one by one."
        )

    def _question(self, first: str, second: str, question: str, roles: tuple[str, ...] = ()) -> str:
        if self.name == MOLTC_2024:
            return f"</s> {first} </s> </s>{second} </s> . {question}"
        link = next((_EARLY_LINKS[role] for role in roles if role in _EARLY_LINKS), _EARLY_LINK)
        comma = "," if "solute" in roles else ""
        return f"{first}{link}{second}{comma}{question}"


def _answer_span(task: Task, text: str) -> tuple[int, int]:
    """Return start and end of the first answer in a text, or of the whole text if none matches."""
    if isinstance(task.kind, Number):
        start = max(text.find(f"The {task.kind.phrase} of "), 0)
        stop = text.find(";", start)
        return (start, stop + 1) if stop >= 0 else (start, len(text))
    if isinstance(task.kind, Choice):
        matches = (_whitespace_pattern(label.text).search(text) for label in task.kind.labels)
        # The longest of the earliest matches is the answer: one label may start with another.
        spans = ((match.start(), -match.end()) for match in matches if match)
        start, negative_end = min(spans, default=(0, -len(text)))
        return start, -negative_end
    return 0, len(text)


def _whitespace_pattern(text: str) -> re.Pattern[str]:
    """Return a pattern for the text with any whitespace between words, ignoring case."""
    return re.compile(r"\s+".join(map(re.escape, text.split())), re.IGNORECASE)
