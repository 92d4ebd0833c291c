"""Molecules in plain text, written between ``[START_I_SMILES]`` and ``[END_I_SMILES]``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from vllm.exceptions import VLLMValidationError

from moltc_vllm.plugin.modality.molecules import MoleculeSpec
from moltc_vllm.tasks import MOLECULE_END, MOLECULE_START, MOLECULE_TOKEN, molecule_markup

_TAGGED = re.compile(
    re.escape(MOLECULE_START) + r"(?P<smiles>.*?)" + re.escape(MOLECULE_END), re.DOTALL
)
_RESERVED = (MOLECULE_TOKEN, MOLECULE_START, MOLECULE_END)


def extract_molecules(
    text: str,
    where: str,
    markup: Callable[[str], str] = molecule_markup,
    arrange: Callable[[Sequence[str]], Sequence[int]] | None = None,
) -> tuple[str, list[MoleculeSpec]]:
    """Extract the tagged molecules of a text.

    Args:
        text: Text such as ``... [START_I_SMILES]CCO[END_I_SMILES] ...``.
        where: Field of the request, for error messages.
        markup: Function that writes a molecule with its placeholder in the prompt style's form.
        arrange: Function that returns the index of the molecule to put at each position, from all
            SMILES of the text; default: all stay where they are.

    Returns:
        The text with `markup` in place of tagged molecules, and the molecules in their order.

    Raises:
        VLLMValidationError: If the text has the placeholder token itself, or a tag without its
            counterpart.
    """
    if not any(token in text for token in _RESERVED):
        return text, []
    between: list[str] = []
    smiles: list[str] = []
    end = 0
    for match in _TAGGED.finditer(text):
        between.append(reject_reserved(text[end : match.start()], where))
        smiles.append(reject_reserved(match["smiles"], where).strip())
        end = match.end()
    rest = reject_reserved(text[end:], where)
    if arrange is not None:
        smiles = [smiles[index] for index in arrange(smiles)]
    pieces = (piece for pair in zip(between, map(markup, smiles), strict=True) for piece in pair)
    return "".join((*pieces, rest)), [MoleculeSpec(text) for text in smiles]


def reject_reserved(text: str, where: str) -> str:
    """Return the text unchanged if it has neither the placeholder token nor a molecule tag.

    Args:
        text: Text of the user.
        where: Field of the request, for error messages.

    Raises:
        VLLMValidationError: If the text contains one of these tokens.
    """
    for token in _RESERVED:
        if token in text:
            reason = (
                "is reserved: a molecule is written "
                f"{MOLECULE_START}SMILES{MOLECULE_END} or sent as a content part"
                if token == MOLECULE_TOKEN
                else "has no partner"
            )
            raise VLLMValidationError(f"{token} {reason}", parameter=where)
    return text


def join_texts(texts: Sequence[str]) -> str:
    """Join texts, and insert a space where two of them would meet without white space."""
    joined = ""
    for text in texts:
        if joined and text and not joined[-1].isspace() and not text[0].isspace():
            joined += " "
        joined += text
    return joined
