"""Canonical keys of molecules, and the graphs of keys."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from rdkit import Chem

from moltc_vllm.chem.descriptor_vector import compute_descriptor_vector
from moltc_vllm.chem.errors import MoleculeError
from moltc_vllm.chem.featurize import featurize, featurize_packed
from moltc_vllm.chem.graph import MAX_ATOMS, MolGraph
from moltc_vllm.chem.limits import DEFAULT_LIMITS, MoleculeLimits
from moltc_vllm.chem.packed import PackedMolecule
from moltc_vllm.chem.parse import (
    clean_smiles,
    parse_for_graph,
    parse_for_writing,
    parse_molblock,
)
from moltc_vllm.chem.rdkit_log import QuietLog
from moltc_vllm.chem.standardize import standardize
from moltc_vllm.utils.standardization import Standardization

_KEY_CACHE_SIZE = 65_536
_GRAPH_CACHE_SIZE = 16_384
_MAX_CANONICALIZATIONS = 8

# Keys are read without limits of the caller's: `canonical_key` enforced them when it made the key.
_KEY_LIMITS = MoleculeLimits(max_atoms=MAX_ATOMS, max_characters=1 << 20)


def canonical_key(
    text: str,
    limits: MoleculeLimits = DEFAULT_LIMITS,
    standardization: Standardization = "as-drawn",
) -> str:
    """Compute a key that does not depend on how the molecule's SMILES is written.

    The key is RDKit's canonical isomeric SMILES without atom map numbers, which label atoms for
    reactions and do not change the molecule. It is a fixed point, ``canonical_key(key) == key``,
    and `packed_of` can encode it, so a server that has a key has a valid molecule.

    Results are cached; errors are not.

    Args:
        text: SMILES of the molecule.
        limits: Bounds on the molecule's size, as given and in canonical form.
        standardization: How the molecule is standardized first; see
            `moltc_vllm.chem.standardize`.

    Returns:
        The key, which may differ between RDKit releases.

    Raises:
        MoleculeError: If the molecule cannot be read or encoded.
    """
    # Checks run before the cache: other types may not be hashable, and the cache must not retain
    # overlong text.
    return _cached_key(clean_smiles(text, limits), limits, standardization)


def as_written_key(
    text: str,
    limits: MoleculeLimits = DEFAULT_LIMITS,
    standardization: Standardization = "as-drawn",
) -> str:
    """Validate a molecule and return its SMILES as written, for use as the key.

    Two spellings of a molecule then have two keys, and `packed_of` encodes each as written.
    Encoders that were trained on molecules as written, not in canonical form, need these keys.

    Args:
        text: SMILES of the molecule.
        limits: Bounds on the molecule's size.
        standardization: How the molecule is standardized first.

    Returns:
        The text without surrounding whitespace; another SMILES if standardization changed the
        molecule.

    Raises:
        MoleculeError: If the molecule cannot be read or encoded.
    """
    smiles = clean_smiles(text, limits)
    if standardization != "as-drawn":
        smiles = standardize(smiles, standardization, limits).smiles
    atoms = len(_canonicalize(smiles)[1].degree)
    if atoms > limits.max_atoms:
        raise MoleculeError(smiles, "too_many_atoms", f"{atoms} atoms, at most {limits.max_atoms}")
    return smiles


def packed_of(key: str, *, descriptors: bool = False) -> PackedMolecule:
    """Look up or build the packed graph of a key, which is the model's input.

    Chirality tags and bond directions depend on the order of atoms in a SMILES, so the molecule is
    parsed from the key and not from the user's text.

    Args:
        key: Result of `canonical_key` or `as_written_key`. Any other SMILES is encoded as written.
        descriptors: Whether to add the vector of descriptors, which has a cache of its own.

    Returns:
        The packed graph: shared by all callers and read-only. `canonical_key` in the same process
        has usually put it into the cache, which holds 16,384 molecules.

    Raises:
        MoleculeError: If ``key`` is not a key.
    """
    smiles = clean_smiles(key, _KEY_LIMITS)
    packed = _canonicalize(smiles)[1]
    return packed._replace(descriptors=_cached_descriptors(smiles)) if descriptors else packed


def graph_of(key: str) -> MolGraph:
    """Look up or build the unpacked graph of a key; `packed_of` returns the same graph packed.

    Args:
        key: Result of `canonical_key` or `as_written_key`.

    Returns:
        The graph: shared by all callers and read-only.

    Raises:
        MoleculeError: If ``key`` is not a key.
    """
    return _cached_graph(clean_smiles(key, _KEY_LIMITS))


def molblock_to_smiles(block: str, limits: MoleculeLimits = DEFAULT_LIMITS) -> str:
    """Convert a V2000 or V3000 molblock to a canonical isomeric SMILES.

    Stereo groups ("or", "and"), coordinates and data fields cannot be expressed in a SMILES and
    are dropped. Whether the encoder supports the result is checked by `canonical_key`.

    Raises:
        MoleculeError: If ``block`` is not a molblock of one molecule within the limits.
    """
    mol = parse_molblock(block, limits)
    _clear_atom_maps(mol)
    return _to_smiles(mol)


@lru_cache(maxsize=_KEY_CACHE_SIZE)
def _cached_key(smiles: str, limits: MoleculeLimits, standardization: Standardization) -> str:
    standardized = smiles
    if standardization != "as-drawn":
        standardized = standardize(smiles, standardization, limits).smiles
    mol = parse_for_writing(standardized, limits)
    if ":" in standardized:
        _clear_atom_maps(mol)
    try:
        key = _canonical_fixed_point(_to_smiles(mol))
    except MoleculeError as error:
        featurize(mol, smiles)  # Raises the same error, but with the user's atom indices.
        raise MoleculeError(smiles, error.kind, error.reason) from None
    if len(key) > limits.max_characters:
        reason = f"{len(key)} characters in canonical form, at most {limits.max_characters}"
        raise MoleculeError(smiles, "too_long", reason)
    return key


def _canonical_fixed_point(smiles: str) -> str:
    """Canonicalize until the SMILES no longer changes; if it cycles, return the cycle's minimum.

    One round was enough for all 36,157 molecules of the data sets and for 35,898 randomized SMILES
    of half of them (RDKit 2026.09.1), so this costs no more than the graph that `packed_of` needs
    anyway. Further rounds guarantee a fixed point for other molecules and RDKit releases.
    """
    history = [smiles]
    for _ in range(_MAX_CANONICALIZATIONS):
        canonical = _canonicalize(history[-1])[0]
        if canonical in history:
            return min(history[history.index(canonical) :])
        history.append(canonical)
    raise MoleculeError(smiles, "unsupported", "RDKit finds no canonical form")


@lru_cache(maxsize=_GRAPH_CACHE_SIZE)
def _canonicalize(smiles: str) -> tuple[str, PackedMolecule]:
    """Parse a SMILES once, for both its canonical form and its packed graph."""
    mol = parse_for_writing(smiles, _KEY_LIMITS)
    packed = featurize_packed(mol, smiles)
    return _to_smiles(mol), packed


@lru_cache(maxsize=_GRAPH_CACHE_SIZE)
def _cached_descriptors(smiles: str) -> npt.NDArray[np.float32]:
    with QuietLog():
        return compute_descriptor_vector(parse_for_writing(smiles, _KEY_LIMITS))


@lru_cache(maxsize=_GRAPH_CACHE_SIZE)
def _cached_graph(smiles: str) -> MolGraph:
    return featurize(parse_for_graph(smiles, _KEY_LIMITS), smiles)


def _clear_atom_maps(mol: Chem.Mol) -> None:
    for atom in mol.GetAtoms():
        atom.SetAtomMapNum(0)


def _to_smiles(mol: Chem.Mol) -> str:
    with QuietLog():
        return Chem.MolToSmiles(mol)
