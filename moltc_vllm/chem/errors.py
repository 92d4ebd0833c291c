"""`MoleculeError`: the one exception that this package raises for a molecule."""

from __future__ import annotations

from typing import Literal

ErrorKind = Literal[
    "empty", "type", "syntax", "valence", "unsupported", "too_many_atoms", "too_long", "crash"
]

_SHOWN_CHARACTERS = 80


class MoleculeError(ValueError):
    """A molecule that cannot be read or encoded, with the reason.

    Attributes:
        molecule: Complete input text; the message shows only its beginning.
        kind: Category of the error, for counters and error rows:

            * ``empty``: no text, or a molecule without atoms;
            * ``type``: not a string;
            * ``syntax``: neither a SMILES nor a molblock;
            * ``valence``: well-formed text whose structure RDKit's sanitization rejects (valence,
              aromaticity, kekulization);
            * ``unsupported``: a valid molecule that the encoder's feature tables cannot express;
            * ``too_many_atoms``, ``too_long``: larger than the `MoleculeLimits` allow;
            * ``crash``: a worker process of `featurize_library` died while reading the molecule.
        reason: One-line explanation; RDKit's own message where RDKit rejected the molecule.
    """

    def __init__(self, molecule: str, kind: ErrorKind, reason: str) -> None:
        # pickle calls the class with `args`, so all three arguments must be in it.
        super().__init__(molecule, kind, reason)
        self.molecule = molecule
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return f"molecule {shorten(self.molecule)!r}: {self.kind}: {self.reason}"


def shorten(text: str, width: int = _SHOWN_CHARACTERS) -> str:
    """Cut a text to ``width`` characters and end it with an ellipsis if anything was cut off."""
    return text if len(text) <= width else text[: width - 1] + "…"
