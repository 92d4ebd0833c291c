"""Parse text to an RDKit molecule, or raise a `MoleculeError` with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

from rdkit import Chem

from moltc_vllm.chem.errors import MoleculeError
from moltc_vllm.chem.fast.dispatch import compiled_reader
from moltc_vllm.chem.fast.partial_sanitize import try_parse_for_graph, try_parse_for_writing
from moltc_vllm.chem.fast.smiles_scan import may_have_large_number, scan_smiles
from moltc_vllm.chem.limits import DEFAULT_LIMITS, MoleculeLimits
from moltc_vllm.chem.rdkit_log import QuietLog, captured_log, first_reason

_MOLBLOCK_END = "M  END"

# RDKit silently reduces larger charges and isotopes modulo 2^8 and 2^16.
_OVERFLOWING_NUMBER = re.compile(r"(?<=\[)\d{4,}|[+-]\d{3,}|\+{16,}|-{16,}")
_INVALID_IN_SMILES = re.compile(r"[^!-~]")  # anything but printable ASCII without the space
_INVALID_IN_MOLBLOCK = re.compile(r"[^ -~\t\r\n]")

_Parser = Callable[[str, bool], Chem.Mol | None]
"""RDKit parser of a text and a ``sanitize`` flag; None if the text is malformed."""


def parse_smiles(text: str, limits: MoleculeLimits = DEFAULT_LIMITS) -> Chem.Mol:
    """Parse one SMILES with RDKit's default sanitization.

    All fragments are kept, and hydrogens become implicit where RDKit makes them so. Whitespace
    around the text is ignored. RDKit itself accepts ``"CCO foo"`` as ethanol with a name and ``""``
    as a molecule without atoms; both raise here, and so do CXSMILES extensions.

    Args:
        text: SMILES of one molecule, which may have several fragments.
        limits: Bounds on the molecule's size.

    Returns:
        The sanitized molecule, with at least one atom.

    Raises:
        MoleculeError: If the text is not one molecule within the limits. Kind ``valence`` covers
            every structure that sanitization rejects.
    """
    smiles = clean_smiles(text, limits)
    return _check_atom_count(_parse(smiles, _smiles_parser), smiles, limits)


def parse_for_graph(smiles: str, limits: MoleculeLimits) -> Chem.Mol:
    """Parse a clean SMILES like `parse_smiles`, computing only what `featurize` reads.

    Raises:
        MoleculeError: Same conditions, kinds and reasons as for `parse_smiles`.
    """
    return _parse_partially(try_parse_for_graph, smiles, limits)


def parse_for_writing(smiles: str, limits: MoleculeLimits) -> Chem.Mol:
    """Parse a clean SMILES like `parse_smiles`, computing only what ``MolToSmiles`` writes.

    Raises:
        MoleculeError: Same conditions, kinds and reasons as for `parse_smiles`.
    """
    return _parse_partially(try_parse_for_writing, smiles, limits)


def _parse_partially(
    try_parse: Callable[[str], Chem.Mol | None], smiles: str, limits: MoleculeLimits
) -> Chem.Mol:
    mol = None
    # The self-test that admits the compiled reader also checks partial sanitization.
    if compiled_reader() is not None:
        with QuietLog():
            mol = try_parse(smiles)
    if mol is None:
        mol = _parse(smiles, _smiles_parser)
    return _check_atom_count(mol, smiles, limits)


def clean_smiles(text: str, limits: MoleculeLimits) -> str:
    """Strip a SMILES and run all checks that need no chemistry.

    Raises:
        MoleculeError: If the text is not a string, is empty or too long, or has characters or
            numbers that no SMILES has.
    """
    smiles = _strip(text)
    _check_length(smiles, limits.max_characters)
    _check_characters(smiles, _INVALID_IN_SMILES)
    # The scan is cheap and rules the regular expression out for almost every molecule.
    if may_have_large_number(scan_smiles(smiles)):
        match = _OVERFLOWING_NUMBER.search(smiles)
        if match is not None:
            raise MoleculeError(smiles, "syntax", f"no atom has {match[0]!r}")
    return smiles


def parse_molblock(block: str, limits: MoleculeLimits = DEFAULT_LIMITS) -> Chem.Mol:
    """Parse one V2000 or V3000 molblock with RDKit's default sanitization.

    Text after ``M  END`` (an SDF record's data) is ignored, unless it is another molecule.

    Args:
        block: Molblock with its three header lines.
        limits: Bounds on the molecule's size.

    Returns:
        The sanitized molecule, with implicit hydrogens and at least one atom.

    Raises:
        MoleculeError: Same conditions as for `parse_smiles`; also query atoms and bonds, which
            RDKit would replace by their first alternative.
    """
    _strip(block)  # The result is not used: leading blank lines of a molblock are significant.
    _check_length(block, limits.max_molblock_characters)
    _check_characters(block, _INVALID_IN_MOLBLOCK)
    if block.count(_MOLBLOCK_END) != 1:
        raise MoleculeError(block, "syntax", f"not exactly one {_MOLBLOCK_END!r} line")
    mol = _check_atom_count(_parse(block, _molblock_parser), block, limits)
    queries = [f"atom {atom.GetIdx()}" for atom in mol.GetAtoms() if atom.HasQuery()]
    queries += [f"bond {bond.GetIdx()}" for bond in mol.GetBonds() if bond.HasQuery()]
    if queries:
        raise MoleculeError(block, "unsupported", f"{queries[0]} is a query")
    return mol


def _strip(text: str) -> str:
    if not isinstance(text, str):
        type_name = type(text).__name__
        raise MoleculeError(
            f"<{type_name}>", "type", f"a molecule must be a string, not {type_name}"
        )
    stripped = text.strip()
    if not stripped:
        raise MoleculeError(stripped, "empty", "no text")
    return stripped


def _check_length(text: str, limit: int) -> None:
    if len(text) > limit:
        raise MoleculeError(text, "too_long", f"{len(text)} characters, at most {limit}")


def _check_characters(text: str, invalid: re.Pattern[str]) -> None:
    if match := invalid.search(text):
        reason = f"character {match[0]!a} at position {match.start() + 1}"
        raise MoleculeError(text, "syntax", reason)


def _check_atom_count(mol: Chem.Mol, text: str, limits: MoleculeLimits) -> Chem.Mol:
    atoms = mol.GetNumAtoms()
    if atoms == 0:
        raise MoleculeError(text, "empty", "no atoms")
    if atoms > limits.max_atoms:
        raise MoleculeError(text, "too_many_atoms", f"{atoms} atoms, at most {limits.max_atoms}")
    return mol


def _smiles_parser(text: str, sanitize: bool) -> Chem.Mol | None:
    # Names and CXSMILES extensions need a space, which `clean_smiles` has rejected.
    return Chem.MolFromSmiles(text, sanitize=sanitize)


def _molblock_parser(text: str, sanitize: bool) -> Chem.Mol | None:
    return Chem.MolFromMolBlock(text, sanitize=sanitize, removeHs=sanitize)


def _parse(text: str, parser: _Parser) -> Chem.Mol:
    """Parse with sanitization.

    A failed parse is repeated with the log captured, to tell malformed text from an impossible
    structure and to quote RDKit's reason.

    Raises:
        MoleculeError: If RDKit rejects the text (``syntax``) or the structure (``valence``).
    """
    with QuietLog(), suppress(ValueError, RuntimeError):
        mol = parser(text, True)
        if mol is not None:
            return mol
    with captured_log() as log:
        try:
            mol = parser(text, True)
            if mol is not None:
                return mol
            unsanitized = parser(text, False)
            if unsanitized is not None:
                Chem.SanitizeMol(unsanitized)
        except Chem.MolSanitizeException as error:
            raise MoleculeError(text, "valence", first_reason(str(error))) from None
        except (ValueError, RuntimeError) as error:  # RDKit's own invariants raise RuntimeError.
            raise MoleculeError(text, "syntax", first_reason(str(error))) from None
    raise MoleculeError(text, "syntax", first_reason(log.messages))
