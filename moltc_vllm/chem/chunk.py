"""Blocks of a library: many SMILES read in one process, and the form in which they travel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from moltc_vllm.chem.errors import MoleculeError
from moltc_vllm.chem.fast.dispatch import compiled_reader
from moltc_vllm.chem.featurize import featurize_packed
from moltc_vllm.chem.limits import MoleculeLimits
from moltc_vllm.chem.molecule import canonical_key, packed_of
from moltc_vllm.chem.packed import PackedMolecule, empty_packed, frozen
from moltc_vllm.chem.parse import clean_smiles, parse_for_graph
from moltc_vllm.chem.rdkit_log import QuietLog

Row: TypeAlias = tuple[str, PackedMolecule] | MoleculeError
"""A molecule's key and packed graph, or why it has none."""


class Chunk(NamedTuple):
    """Rows of a library, flat: four arrays travel between processes, not four per molecule."""

    keys: list[str | MoleculeError]  # [B]
    sizes: npt.NDArray[np.int64]  # [B, 2] atoms and directed bonds, 0 and 0 of errors
    molecules: PackedMolecule  # of all rows, one after another

    def rows(self) -> Iterator[Row]:
        """Take the block apart; the arrays are read-only views into the block's."""
        molecules = frozen(self.molecules)
        atom = bond = 0
        for key, (atoms, bonds) in zip(self.keys, self.sizes.tolist(), strict=True):
            if isinstance(key, MoleculeError):
                yield key
                continue
            here, there = slice(atom, atom + atoms), slice(bond, bond + bonds)
            yield (
                key,
                PackedMolecule(
                    molecules.atoms[here],
                    molecules.degree[here],
                    molecules.source[there],
                    molecules.bond_code[there],
                ),
            )
            atom, bond = here.stop, there.stop


def read_chunk(texts: Sequence[str], limits: MoleculeLimits, canonical: bool) -> Chunk:
    """Read many SMILES; what is wrong with one is its own row's error.

    Args:
        texts: SMILES as they were given.
        limits: How large each may be.
        canonical: Whether keys are canonical and graphs the keys'; otherwise a molecule's key is
            its text, and its graph is what is written there, which takes a third of the time.
    """
    return _read_canonically(texts, limits) if canonical else _read_as_written(texts, limits)


def _read_canonically(texts: Sequence[str], limits: MoleculeLimits) -> Chunk:
    rows: list[Row] = []
    for text in texts:
        try:
            key = canonical_key(text, limits)
            rows.append((key, packed_of(key)))
        except MoleculeError as error:
            rows.append(error)
    return _join(rows)


def _read_as_written(texts: Sequence[str], limits: MoleculeLimits) -> Chunk:
    reader = compiled_reader()
    if reader is None:
        return _join([_row(text, limits) for text in texts])
    keys: list[str | MoleculeError] = []
    binaries: list[bytes] = []
    with QuietLog():
        for text in texts:
            try:
                smiles = clean_smiles(text, limits)
                binaries.append(reader.to_binary(parse_for_graph(smiles, limits)))
                keys.append(smiles)
            except MoleculeError as error:
                keys.append(error)
    sizes, molecules = reader.packed_all(binaries)
    if sizes[:, 0].all():
        return Chunk(keys, _with_errors(keys, sizes), molecules)
    # A row needs the plain loops: the whole block again, which is seldom and simple.
    return _join([_row(text, limits) for text in texts])


def _row(text: str, limits: MoleculeLimits) -> Row:
    try:
        smiles = clean_smiles(text, limits)
        return smiles, featurize_packed(parse_for_graph(smiles, limits), smiles)
    except MoleculeError as error:
        return error


def _with_errors(
    keys: Sequence[str | MoleculeError], sizes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Spread the sizes of good rows over all rows."""
    every = np.zeros((len(keys), 2), np.int64)
    every[[not isinstance(key, MoleculeError) for key in keys]] = sizes
    return every


def _join(rows: Sequence[Row]) -> Chunk:
    keys = [row if isinstance(row, MoleculeError) else row[0] for row in rows]
    good = [row[1] for row in rows if not isinstance(row, MoleculeError)]
    sizes = np.array([(len(one.degree), len(one.source)) for one in good], np.int64)
    columns = zip(empty_packed(0, 0), *good, strict=True)  # without `good`, the types stay
    molecules = PackedMolecule(*(np.concatenate(arrays) for arrays in columns))
    return Chunk(keys, _with_errors(keys, sizes.reshape(-1, 2)), molecules)
