"""Markup of molecules in prompts, and the prompt of the ``moltc`` style."""

from __future__ import annotations

from collections.abc import Sequence

MOLECULE_START = "[START_I_SMILES]"
MOLECULE_END = "[END_I_SMILES]"
MOLECULE_TOKEN = "<mol>"
"""Placeholder that is replaced by a molecule's token embeddings."""

RESERVED_TOKENS = (MOLECULE_START, MOLECULE_END, MOLECULE_TOKEN)


class PromptError(ValueError):
    """Molecules or a question that do not fit a prompt."""


def molecule_markup(smiles: str) -> str:
    """Return a molecule's markup: its SMILES between tags, then the placeholder."""
    return f"{MOLECULE_START}{smiles}{MOLECULE_END}{MOLECULE_TOKEN}"


def build_prompt(smiles: Sequence[str], question: str) -> str:
    """Return the prompt: the molecules, the question, and a line break before the answer.

    Molecules come first so that pairs with the same first molecule share a cached prefix.
    """
    return " ".join((*map(molecule_markup, smiles), question)) + "\n"


def check_question(question: str) -> None:
    """Reject a question that is empty or contains reserved tokens.

    Raises:
        PromptError: If the question is not usable; the message names the reserved token.
    """
    if not question.strip():
        raise PromptError("the question is empty")
    for token in RESERVED_TOKENS:
        if token in question:
            raise PromptError(f"the question contains the reserved token {token}")
