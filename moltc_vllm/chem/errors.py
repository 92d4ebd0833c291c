"""`MoleculeError`: the one exception of this room."""

from __future__ import annotations

from typing import Literal

ErrorKind = Literal[
    "empty", "type", "syntax", "valence", "unsupported", "too_many_atoms", "too_long", "crash"
]

_SHOWN_CHARACTERS = 80


class MoleculeError(ValueError):
    """A molecule that cannot be read or encoded, with the reason.

    Attributes:
        molecule: The text as it was given, complete; the message shows its beginning.
        kind: What is wrong, for counters and error rows:

            * ``empty``: no text, or a molecule without atoms;
            * ``type``: not a string;
            * ``syntax``: not a SMILES or not a molblock;
            * ``valence``: well spelled, but RDKit's sanitisation refuses the structure (valence,
              aromaticity, kekulisation);
            * ``unsupported``: a valid molecule that the encoder's feature tables cannot express;
            * ``too_many_atoms``, ``too_long``: beyond the `MoleculeLimits`;
            * ``crash``: reading it ended a worker process of `featurize_library`.
        reason: One line; RDKit's own words where it was RDKit that refused.
    """

    def __init__(self, molecule: str, kind: ErrorKind, reason: str) -> None:
        # All three go to `args`, which is what pickle calls the class with.
        super().__init__(molecule, kind, reason)
        self.molecule = molecule
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return f"molecule {shorten(self.molecule)!r}: {self.kind}: {self.reason}"


def shorten(text: str, width: int = _SHOWN_CHARACTERS) -> str:
    """Cut a text to ``width`` characters, the last an ellipsis if anything was lost."""
    return text if len(text) <= width else text[: width - 1] + "…"
