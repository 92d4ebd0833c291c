"""Scan SMILES cheaply: map each character to its kind and search the kinds for patterns.

Regular expressions with alternatives would take up to a tenth of RDKit's parsing time, while
``translate`` and ``in`` take a hundredth. Functions named ``may_...`` can return True for a
harmless text, so a caller that needs certainty checks such texts exactly.
"""

from __future__ import annotations

import string
from typing import Final

_KINDS: Final = {
    "0": string.digits + "#H",  # after "[": an isotope, an atomic number or a hydrogen
    "K": "KUVWY",  # metals with one-letter symbols
    "S": "ABCDEFGIJLMNOPQRSTXZ",
    "a": string.ascii_lowercase,
    "+": "+-",
    "/": "/\\",
    "@": "@",
    "[": "[",
    ".": "()]=%.",
}
"""Characters of each kind, by the letter that stands for the kind."""

_OTHER_KIND: Final = "!"
_TABLE: Final = bytes(
    ord(next((kind for kind, members in _KINDS.items() if chr(code) in members), _OTHER_KIND))
    for code in range(256)
)


def scan_smiles(smiles: str) -> bytes:
    """Map each character to its kind; characters outside plain organic SMILES become ``!``.

    >>> scan_smiles("C[C@@H](N)C#[13C]")
    b'S[S@@0..S.S0[00S.'
    """
    return smiles.encode("ascii", "replace").translate(_TABLE)


def may_have_large_number(kinds: bytes) -> bool:
    """Tell whether an isotope or a charge may be so large that RDKit would wrap it around."""
    return b"[0000" in kinds or b"+000" in kinds or b"++++++++++++++++" in kinds


def needs_default_parsing(kinds: bytes) -> bool:
    """Tell whether the text has features that `partial_sanitize` does not handle.

    These are atom maps, dummy atoms, dative, quadruple and unspecified bonds, and quoted symbols;
    bracket hydrogens and isotopes; chirality other than ``@`` and ``@@``; and any syntax that a
    later RDKit release may add.
    """
    return b"!" in kinds or b"[0" in kinds or b"@S" in kinds


def has_stereo(kinds: bytes) -> bool:
    """Tell whether an atom or a bond has a stereo mark."""
    return b"@" in kinds or b"/" in kinds


def may_have_metal(kinds: bytes) -> bool:
    """Tell whether a bracket atom is spelled like a metal: two letters, or K, U, V, W or Y."""
    return b"[Sa" in kinds or b"[K" in kinds
