"""Chunks of a library: many SMILES read in one process, in a form that is cheap to pickle."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from moltc_vllm.chem.descriptor_vector import compute_descriptor_vector
from moltc_vllm.chem.errors import MoleculeError
from moltc_vllm.chem.fast.dispatch import compiled_reader
from moltc_vllm.chem.featurize import featurize_packed
from moltc_vllm.chem.limits import MoleculeLimits
from moltc_vllm.chem.molecule import canonical_key, packed_of
from moltc_vllm.chem.packed import PackedMolecule, concatenate, empty_packed, freeze
from moltc_vllm.chem.parse import clean_smiles, parse_for_graph, parse_for_writing
from moltc_vllm.chem.rdkit_log import QuietLog
from moltc_vllm.utils.standardization import Standardization

LibraryRow: TypeAlias = tuple[str, PackedMolecule] | MoleculeError
"""Key and packed graph of a molecule, or the error that explains why it has none."""


class Chunk(NamedTuple):
    """B rows of a library whose graphs are concatenated.

    Worker processes then return few arrays per chunk instead of several per molecule.
    """

    keys: list[str | MoleculeError]  # [B]
    sizes: npt.NDArray[np.int64]  # [B, 2] numbers of atoms and directed bonds, 0 for errors
    molecules: PackedMolecule  # arrays of all molecules, concatenated; see `packed.concatenate`

    def rows(self) -> Iterator[LibraryRow]:
        """Split the chunk into rows; their arrays are read-only views of the chunk's arrays."""
        molecules = freeze(self.molecules)
        first_atom = first_bond = 0
        vectors = itertools.repeat(None) if molecules.descriptors is None else molecules.descriptors
        next_vector = iter(vectors).__next__
        for key, (atoms, bonds) in zip(self.keys, self.sizes.tolist(), strict=True):
            if isinstance(key, MoleculeError):
                yield key
                continue
            atom_slice = slice(first_atom, first_atom + atoms)
            bond_slice = slice(first_bond, first_bond + bonds)
            yield (
                key,
                PackedMolecule(
                    molecules.atoms[atom_slice],
                    molecules.degree[atom_slice],
                    molecules.source[bond_slice],
                    molecules.bond_code[bond_slice],
                    molecules.detail[atom_slice],
                    next_vector(),
                ),
            )
            first_atom, first_bond = atom_slice.stop, bond_slice.stop


def read_chunk(
    texts: Sequence[str],
    limits: MoleculeLimits,
    canonical: bool,
    descriptors: bool = False,
    standardization: Standardization = "as-drawn",
) -> Chunk:
    """Read several SMILES; an invalid one only affects its own row.

    Args:
        texts: SMILES as the user gave them.
        limits: Bounds on each molecule's size.
        canonical: Whether to canonicalize, so that each row is ``canonical_key(text)`` and its
            graph. Otherwise the key is the stripped text and the graph has the text's atom order,
            which takes a third of the time.
        descriptors: Whether to add each molecule's vector of descriptors.
        standardization: How each molecule is standardized first; needs ``canonical``.
    """
    if canonical:
        return _read_canonical(texts, limits, descriptors, standardization)
    if descriptors:
        return _join([_read_row(text, limits, descriptors) for text in texts])
    return _read_as_written(texts, limits)


def _read_canonical(
    texts: Sequence[str],
    limits: MoleculeLimits,
    descriptors: bool,
    standardization: Standardization,
) -> Chunk:
    rows: list[LibraryRow] = []
    for text in texts:
        try:
            key = canonical_key(text, limits, standardization)
            rows.append((key, packed_of(key, descriptors=descriptors)))
        except MoleculeError as error:
            rows.append(error)
    return _join(rows)


def _read_as_written(texts: Sequence[str], limits: MoleculeLimits) -> Chunk:
    reader = compiled_reader()
    if reader is None:
        return _join([_read_row(text, limits) for text in texts])
    keys: list[str | MoleculeError] = []
    pickles: list[bytes] = []
    with QuietLog():
        for text in texts:
            try:
                smiles = clean_smiles(text, limits)
                pickles.append(reader.to_binary(parse_for_graph(smiles, limits)))
                keys.append(smiles)
            except MoleculeError as error:
                keys.append(error)
    sizes, molecules = reader.pack_pickles(pickles)
    if sizes[:, 0].all():
        return Chunk(keys, _sizes_with_errors(keys, sizes), molecules)
    # The compiled reader does not support at least one molecule. This is rare, so reading the
    # whole chunk again, row by row, is fast enough.
    return _join([_read_row(text, limits) for text in texts])


def _read_row(text: str, limits: MoleculeLimits, descriptors: bool = False) -> LibraryRow:
    try:
        smiles = clean_smiles(text, limits)
        if not descriptors:
            return smiles, featurize_packed(parse_for_graph(smiles, limits), smiles)
        mol = parse_for_writing(smiles, limits)
        packed = featurize_packed(mol, smiles)
        with QuietLog():
            return smiles, packed._replace(descriptors=compute_descriptor_vector(mol))
    except MoleculeError as error:
        return error


def _sizes_with_errors(
    keys: Sequence[str | MoleculeError], valid_sizes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Spread the sizes of the valid rows over all rows; errors have sizes 0 and 0."""
    sizes = np.zeros((len(keys), 2), np.int64)
    sizes[[not isinstance(key, MoleculeError) for key in keys]] = valid_sizes
    return sizes


def _join(rows: Sequence[LibraryRow]) -> Chunk:
    keys = [row if isinstance(row, MoleculeError) else row[0] for row in rows]
    molecules = [row[1] for row in rows if not isinstance(row, MoleculeError)]
    sizes = np.array([(len(packed.degree), len(packed.source)) for packed in molecules], np.int64)
    joined = concatenate(molecules) if molecules else empty_packed(0, 0)
    return Chunk(keys, _sizes_with_errors(keys, sizes.reshape(-1, 2)), joined)
