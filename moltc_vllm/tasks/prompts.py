"""The markup of molecules in a text: the one place that knows it."""

from __future__ import annotations

from collections.abc import Sequence

MOLECULE_START = "[START_I_SMILES]"
MOLECULE_END = "[END_I_SMILES]"
MOLECULE_TOKEN = "<mol>"
"""Stands where the molecule tokens go."""

RESERVED_TOKENS = (MOLECULE_START, MOLECULE_END, MOLECULE_TOKEN)


class PromptError(ValueError):
    """A prompt cannot be made of these molecules and this question."""


def molecule_markup(smiles: str) -> str:
    """A molecule in a text: its SMILES between tags, then the place of its molecule tokens."""
    return f"{MOLECULE_START}{smiles}{MOLECULE_END}{MOLECULE_TOKEN}"


def build_prompt(smiles: Sequence[str], question: str) -> str:
    """Molecules, then the question; the answer starts on a new line.

    Molecules come first so that pairs with the same first molecule share a cached prefix.
    """
    return " ".join((*map(molecule_markup, smiles), question)) + "\n"


def check_question(question: str) -> None:
    """Refuse a question that is empty or could be taken for a molecule.

    Raises:
        PromptError: Naming the reserved token.
    """
    if not question.strip():
        raise PromptError("the question is empty")
    for token in RESERVED_TOKENS:
        if token in question:
            raise PromptError(f"the question has the reserved token {token}")
