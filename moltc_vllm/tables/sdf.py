"""SDF: molecule blocks, with their data fields as columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from moltc_vllm.chem import MoleculeError, molblock_to_smiles
from moltc_vllm.tables.streams import Line, read_lines
from moltc_vllm.tables.table import NAME, SMILES, Record, Table

_MAX_BLOCK_CHARACTERS = 1 << 22
_BLOCK_END = "$$$$"


def open_sdf(path: Path, start: bytes) -> Table:
    """Open an SDF as a table: ``smiles`` of the structure, ``name``, then the data fields.

    The file is first read for the names of all fields, because they may differ between molecules.

    Args:
        path: Path of the file.
        start: First bytes of the file; not used.
    """
    names = dict.fromkeys(filter(None, (_field_name(line.text) for line in read_lines(path))))
    # The structure and the title line take precedence over fields with the same names.
    fields = [name for name in names if name not in (SMILES, NAME)]

    def records() -> Iterator[Record]:
        for block in _read_blocks(read_lines(path)):
            yield _parse_block(block, fields)

    return Table(path, (SMILES, NAME, *fields), records)


def looks_like_sdf(start: bytes) -> bool:
    """Return whether the first bytes of a file contain a molecule block."""
    return b"M  END" in start or b"V2000" in start or b"V3000" in start


def _read_blocks(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Group lines into blocks; a block that is too long becomes a single line with an error."""
    block: list[Line] = []
    size = 0
    for line in lines:
        size += len(line.text)
        if line.text.rstrip() == _BLOCK_END:
            yield block
            block, size = [], 0
        elif size <= _MAX_BLOCK_CHARACTERS:
            block.append(line)
        else:
            block = [Line("", f"the block has more than {_MAX_BLOCK_CHARACTERS:,} characters")]
    if any(line.text.strip() or line.error for line in block):  # the last "$$$$" may be missing
        yield block


def _parse_block(block: Sequence[Line], fields: Sequence[str]) -> Record:
    line_error = next((line.error for line in block if line.error is not None), None)
    if line_error is not None:
        return Record((), line_error)
    lines = [line.text for line in block]
    end = next((index for index, line in enumerate(lines) if line.startswith("M  END")), None)
    if end is None:
        return Record((), "the molecule block has no end (M  END)")
    try:
        smiles = molblock_to_smiles("\n".join(lines[: end + 1]))
    except MoleculeError as error:
        return Record((), str(error))
    values = _parse_fields(lines[end + 1 :])
    cells = ("\n".join(values.get(field, ())) for field in fields)
    return Record((smiles, lines[0].strip(), *cells))


def _parse_fields(lines: Iterable[str]) -> dict[str, list[str]]:
    """Return the lines of each data field by its name."""
    values: dict[str, list[str]] = {}
    field: str | None = None
    for line in lines:
        if name := _field_name(line):
            field = name
        elif field is not None and line.strip():
            values.setdefault(field, []).append(line)
    return values


def _field_name(line: str) -> str | None:
    """Return the name in a data header, ``>  <NAME>``; ``None`` for any other line."""
    if not line.startswith(">") or "<" not in line:
        return None
    return line.partition("<")[2].partition(">")[0].strip() or None
