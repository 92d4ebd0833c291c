"""The published prompts, and what the published code makes of the answers.

Two sets of templates: ``moltc-2024`` is the published code as it is, ``moltc-2024-early`` as it
was before 24 May 2024, when the first checkpoints had been offered already.

Source: MolTC's data and evaluation code (Fang et al. 2024).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from moltc_vllm.tasks.answer import Answer
from moltc_vllm.tasks.confidence import TokenLogprob, tokens_between
from moltc_vllm.tasks.kinds import Choice
from moltc_vllm.tasks.number import Number
from moltc_vllm.tasks.prompts import (
    MOLECULE_END,
    MOLECULE_START,
    MOLECULE_TOKEN,
    PromptError,
    check_question,
    molecule_markup,
)
from moltc_vllm.tasks.style import Composed, Limits
from moltc_vllm.tasks.table import TASKS
from moltc_vllm.tasks.task import Task

CURRENT, EARLY = "moltc-2024", "moltc-2024-early"
MOLECULE_PROMPT = f"{MOLECULE_START}{{}}{MOLECULE_END}. "
"""The published ``--prompt`` of every fine-tuning command; the blank at the end belongs to it."""

SMILES_SHOWN = 128
"""Characters of a SMILES in the text; the graph is of the whole molecule."""

# Lengths count the `<s>` in front of the answer, which the model never sees.
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

# What transformers' clean-up of tokenization spaces replaces, in its order.
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
    """Prompts to the character, and answers read out of texts that go on after them.

    Pairs of solvent and solute are asked solvent first; molecules are encoded as written.

    Attributes:
        name: ``moltc-2024`` or ``moltc-2024-early``.
        molecule_prompt: Text of one molecule, the published ``--prompt``, with ``{}`` between the
            tags where the SMILES goes.
    """

    name: str
    molecule_prompt: str = MOLECULE_PROMPT

    def __post_init__(self) -> None:
        if self.name not in (CURRENT, EARLY):
            raise ValueError(f"unknown prompt style {self.name!r}")
        parts = self.molecule_prompt.split(f"{MOLECULE_START}{{}}{MOLECULE_END}")
        if len(parts) != 2 or any(mark in "".join(parts) for mark in ("{", "}", MOLECULE_TOKEN)):
            raise ValueError(
                f"the molecule prompt {self.molecule_prompt!r} needs one {{}} between "
                f"{MOLECULE_START} and {MOLECULE_END}, and no other"
            )

    @property
    def as_written(self) -> bool:
        """The published code reads the SMILES it is given."""
        return True

    @property
    def constrained(self) -> bool:
        """The published code lets the model write freely."""
        return False

    @property
    def stop(self) -> str:
        """A line end, which the pair tasks never trained: most answers run to their limit."""
        return "\n"

    @property
    def chat_template(self) -> str:
        """Nothing between or after messages: a line end would be the stop token."""
        return "{%- for message in messages -%}{{ message['content'] }}{%- endfor -%}"

    def tasks(self) -> list[str]:
        """All tasks of two molecules, and the description of one."""
        return [
            name
            for name, task in TASKS.items()
            if len(task.roles) == 2 or task.any_molecules or name == _MOLECULE_DESCRIPTION
        ]

    def compose(self, task: Task, smiles: Sequence[str], question: str | None = None) -> Composed:
        """Fill the published template; see `moltc_vllm.tasks.style.PromptStyle.compose`."""
        task.check(len(smiles), question)
        if task.name not in self.tasks():
            raise PromptError(f"task {task.name!r} has no prompt in the style {self.name!r}")
        if task.name == _MOLECULE_DESCRIPTION:
            return Composed(self._molecule(smiles[0]), (0,))
        if len(smiles) != 2:
            raise PromptError(f"the prompt style {self.name!r} asks about two molecules")
        order = (1, 0) if task.name in _SOLVENT_FIRST else (0, 1)
        first, second = (self._molecule(smiles[place]) for place in order)
        if task.name == _PAIR_DESCRIPTION:
            return Composed(self._description(first, second), order)
        asked = (question or _QUESTIONS.get(task.name, task.question)).strip()
        return Composed(self._question(first, second, asked, task.roles), order)

    def compose_chat(self, smiles: Sequence[str], question: str) -> Composed | None:
        """Two molecules and a question are the published template; anything else stays."""
        if len(smiles) != 2 or not question.strip():
            return None
        check_question(question)
        first, second = map(self._molecule, smiles)
        return Composed(self._question(first, second, question.strip()), (0, 1))

    def markup(self, smiles: str) -> str:
        """The beginning of the SMILES between tags, then the placeholder."""
        return molecule_markup(smiles[:SMILES_SHOWN])

    def tidy(self, text: str) -> str:
        """The text as it is."""
        return text

    def limits(self, task: Task) -> Limits:
        """The published lengths without the one that counts ``<s>``."""
        return self.limits_of_length(_MAX_LENGTHS.get(task.name, _MAX_LENGTH), _MIN_LENGTH)

    @staticmethod
    def limits_of_length(max_length: int, min_length: int) -> Limits:
        """What the published ``--max_len`` and ``--min_len`` allow."""
        return Limits(max_length - 1, max(min_length - 1, 0), counted_before=1)

    def clean(self, text: str) -> str:
        """Without the blanks before punctuation that transformers takes away, and stripped."""
        for spaced, tight in _SPACES:
            text = text.replace(spaced, tight)
        return text.strip()

    def read(self, task: Task, text: str, tokens: Sequence[TokenLogprob] = ()) -> Answer:
        """Read the first answer in the text; descriptions may stand before, anything after it."""
        start, end = _place_of_answer(task, text)
        answer = task.answer(text[start:end], tokens_between(text, tokens, start, end))
        return answer.model_copy(update={"text": text})

    def _molecule(self, smiles: str) -> str:
        return self.molecule_prompt.replace(
            f"{MOLECULE_START}{{}}{MOLECULE_END}", self.markup(smiles)
        )

    def _description(self, first: str, second: str) -> str:
        if self.name == CURRENT:
            return f"</s> {first} </s> </s> {second} </s>"
        return (
            f"{first},The front is the first molecule, followed by the second molecule:{second}."
            "Please provide the biochemical properties of the two molecules one by one."
        )

    def _question(self, first: str, second: str, question: str, roles: tuple[str, ...] = ()) -> str:
        if self.name == CURRENT:
            return f"</s> {first} </s> </s>{second} </s> . {question}"
        link = next((_EARLY_LINKS[role] for role in roles if role in _EARLY_LINKS), _EARLY_LINK)
        comma = "," if "solute" in roles else ""
        return f"{first}{link}{second}{comma}{question}"


def _place_of_answer(task: Task, text: str) -> tuple[int, int]:
    """Where the task's answer begins and ends; the whole text, if none is found."""
    if isinstance(task.kind, Number):
        start = max(text.find(f"The {task.kind.phrase} of "), 0)
        stop = text.find(";", start)
        return (start, stop + 1) if stop >= 0 else (start, len(text))
    if isinstance(task.kind, Choice):
        found = (_loosely(label.text).search(text) for label in task.kind.labels)
        # Of those that begin first the longest, should one be another's beginning.
        places = ((match.start(), -match.end()) for match in found if match)
        start, end = min(places, default=(0, -len(text)))
        return start, -end
    return 0, len(text)


def _loosely(text: str) -> re.Pattern[str]:
    """The text with any blanks between its words, in any case."""
    return re.compile(r"\s+".join(map(re.escape, text.split())), re.IGNORECASE)
