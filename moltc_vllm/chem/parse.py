"""Text to an RDKit molecule, or a `MoleculeError` that says why not."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

from rdkit import Chem

from moltc_vllm.chem.errors import MoleculeError
from moltc_vllm.chem.fast.dispatch import compiled_reader
from moltc_vllm.chem.fast.partial_sanitize import read_for_graph, read_for_writing
from moltc_vllm.chem.fast.smiles_scan import has_large_number, scan_smiles
from moltc_vllm.chem.limits import DEFAULT_LIMITS, MoleculeLimits
from moltc_vllm.chem.rdkit_log import QuietLog, captured_log, first_reason

_MOLBLOCK_END = "M  END"

# RDKit reads larger charges and isotopes modulo 2^8 and 2^16, without a word.
_TOO_LARGE = re.compile(r"(?<=\[)\d{4,}|[+-]\d{3,}|\+{16,}|-{16,}")
_NEVER_IN_SMILES = re.compile(r"[^!-~]")  # all but printable ASCII without the space
_NEVER_IN_MOLBLOCK = re.compile(r"[^ -~\t\r\n]")


def parse_smiles(text: str, limits: MoleculeLimits = DEFAULT_LIMITS) -> Chem.Mol:
    """Read one SMILES with RDKit's default sanitisation.

    All fragments stay, hydrogens become implicit where RDKit makes them so. White space around the
    text is ignored. RDKit itself reads ``"CCO foo"`` as ethanol with a name, and ``""`` as a
    molecule without atoms; here both are errors, and so are CXSMILES extensions.

    Args:
        text: A SMILES.
        limits: How large it may be.

    Returns:
        The sanitised molecule, with at least one atom.

    Raises:
        MoleculeError: If it is not one molecule within the limits. Kind ``valence`` stands for
            everything that sanitisation refuses.
    """
    smiles = clean_smiles(text, limits)
    return _checked(_read(smiles, _smiles_reader), smiles, limits)


def parse_for_graph(smiles: str, limits: MoleculeLimits) -> Chem.Mol:
    """Read a clean SMILES as `parse_smiles` does, but only what `featurize` looks at.

    Raises:
        MoleculeError: As `parse_smiles`.
    """
    return _selectively(read_for_graph, smiles, limits)


def parse_for_writing(smiles: str, limits: MoleculeLimits) -> Chem.Mol:
    """Read a clean SMILES as `parse_smiles` does, but only what is looked at when it is written.

    Raises:
        MoleculeError: As `parse_smiles`.
    """
    return _selectively(read_for_writing, smiles, limits)


def _selectively(
    reader: Callable[[str], Chem.Mol | None], smiles: str, limits: MoleculeLimits
) -> Chem.Mol:
    mol = None
    if compiled_reader() is not None:  # which was tested together with the selective readers
        with QuietLog():
            mol = reader(smiles)
    return _checked(_read(smiles, _smiles_reader) if mol is None else mol, smiles, limits)


def clean_smiles(text: str, limits: MoleculeLimits) -> str:
    """Check everything about a SMILES that needs no chemistry, and strip it.

    Raises:
        MoleculeError: If it is not text, empty, too long, or has characters no SMILES has.
    """
    smiles = _stripped(text)
    _check_length(smiles, limits.max_characters)
    _check_characters(smiles, _NEVER_IN_SMILES)
    number = _TOO_LARGE.search(smiles) if has_large_number(scan_smiles(smiles)) else None
    if number is not None:
        raise MoleculeError(smiles, "syntax", f"no atom has {number[0]!r}")
    return smiles


def parse_molblock(block: str, limits: MoleculeLimits = DEFAULT_LIMITS) -> Chem.Mol:
    """Read one V2000 or V3000 molblock with RDKit's default sanitisation.

    What follows ``M  END`` (an SDF record's data) is ignored, unless it is another molecule.

    Args:
        block: A molblock, with its three header lines.
        limits: How large it may be.

    Returns:
        The sanitised molecule, hydrogens implicit, with at least one atom.

    Raises:
        MoleculeError: As `parse_smiles`; also for query atoms and bonds, which RDKit would turn
            into their first alternative.
    """
    _stripped(block)  # only to check: in a molblock, leading blank lines count
    _check_length(block, limits.max_molblock_characters)
    _check_characters(block, _NEVER_IN_MOLBLOCK)
    if block.count(_MOLBLOCK_END) != 1:
        raise MoleculeError(block, "syntax", f"not exactly one {_MOLBLOCK_END!r} line")
    mol = _checked(_read(block, _molblock_reader), block, limits)
    queries = [f"atom {atom.GetIdx()}" for atom in mol.GetAtoms() if atom.HasQuery()]
    queries += [f"bond {bond.GetIdx()}" for bond in mol.GetBonds() if bond.HasQuery()]
    if queries:
        raise MoleculeError(block, "unsupported", f"{queries[0]} is a query")
    return mol


def _stripped(text: str) -> str:
    if not isinstance(text, str):
        kind = type(text).__name__
        raise MoleculeError(f"<{kind}>", "type", f"a molecule is a string, not {kind}")
    stripped = text.strip()
    if not stripped:
        raise MoleculeError(stripped, "empty", "no text")
    return stripped


def _check_length(text: str, bound: int) -> None:
    if len(text) > bound:
        raise MoleculeError(text, "too_long", f"{len(text)} characters, at most {bound}")


def _check_characters(text: str, never: re.Pattern[str]) -> None:
    if wrong := never.search(text):
        reason = f"character {wrong[0]!a} at position {wrong.start() + 1}"
        raise MoleculeError(text, "syntax", reason)


def _checked(mol: Chem.Mol, text: str, limits: MoleculeLimits) -> Chem.Mol:
    atoms = mol.GetNumAtoms()
    if atoms == 0:
        raise MoleculeError(text, "empty", "no atoms")
    if atoms > limits.max_atoms:
        raise MoleculeError(text, "too_many_atoms", f"{atoms} atoms, at most {limits.max_atoms}")
    return mol


def _smiles_reader(text: str, sanitize: bool) -> Chem.Mol | None:
    # Names and CXSMILES need a space, so they cannot get here.
    return Chem.MolFromSmiles(text, sanitize=sanitize)


def _molblock_reader(text: str, sanitize: bool) -> Chem.Mol | None:
    return Chem.MolFromMolBlock(text, sanitize=sanitize, removeHs=sanitize)


def _read(text: str, reader: Callable[[str, bool], Chem.Mol | None]) -> Chem.Mol:
    """Read with sanitisation; if that fails, find out whether text or structure is at fault."""
    with QuietLog(), suppress(ValueError, RuntimeError):
        mol = reader(text, True)
        if mol is not None:
            return mol
    with captured_log() as log:
        try:
            mol = reader(text, True)
            if mol is not None:
                return mol
            draft = reader(text, False)
            if draft is not None:
                Chem.SanitizeMol(draft)
        except Chem.MolSanitizeException as error:
            raise MoleculeError(text, "valence", first_reason(str(error))) from None
        except (ValueError, RuntimeError) as error:  # a broken invariant inside RDKit
            raise MoleculeError(text, "syntax", first_reason(str(error))) from None
    raise MoleculeError(text, "syntax", first_reason(log.messages))
