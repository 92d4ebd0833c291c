"""The shape of a SMILES: one letter per kind of character, to ask cheap questions about a text.

Regular expressions with alternatives cost up to a tenth of RDKit's parse here; ``translate`` and
``in`` cost a hundredth. Where the answer is "maybe", the exact and slow question can follow.
"""

from __future__ import annotations

import string
from typing import Final

_KINDS: Final = {
    "0": string.digits + "#H",  # after "[": an isotope, an atomic number, a hydrogen
    "K": "KUVWY",  # metals of one letter
    "S": "ABCDEFGIJLMNOPQRSTXZ",
    "a": string.ascii_lowercase,
    "+": "+-",
    "/": "/\\",
    "@": "@",
    "[": "[",
    ".": "()]=%.",
}
_ANY_OTHER: Final = "!"
_TABLE: Final = bytes(
    ord(next((kind for kind, members in _KINDS.items() if chr(code) in members), _ANY_OTHER))
    for code in range(256)
)


def scan_smiles(smiles: str) -> bytes:
    """Translate each character to its kind; all that plain organic SMILES lack becomes ``!``.

    >>> scan_smiles("C[C@@H](N)C#[13C]")
    b'S[S@@0..S.S0[00S.'
    """
    return smiles.encode("ascii", "replace").translate(_TABLE)


def has_large_number(shape: bytes) -> bool:
    """Say whether an isotope or a charge may be one that RDKit would wrap around."""
    return b"[0000" in shape or b"+000" in shape or b"++++++++++++++++" in shape


def is_unusual(shape: bytes) -> bool:
    """Say whether the text has more than organic SMILES do.

    Those are atom maps, dummy atoms, dative, quadruple and any bonds, quoted symbols; hydrogens
    and isotopes in brackets; chirality other than ``@`` and ``@@``; and what RDKit may yet add.
    """
    return b"!" in shape or b"[0" in shape or b"@S" in shape


def has_stereo(shape: bytes) -> bool:
    """Say whether an atom or a bond carries a stereo mark."""
    return b"@" in shape or b"/" in shape


def may_have_metal(shape: bytes) -> bool:
    """Say whether an element in brackets is written as metals are: two letters, or K U V W Y."""
    return b"[Sa" in shape or b"[K" in shape
