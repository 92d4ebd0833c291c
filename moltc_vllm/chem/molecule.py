"""The canonical key of a molecule, and the graph that belongs to it."""

from __future__ import annotations

from functools import lru_cache

from rdkit import Chem

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

_KEYS_KEPT = 65_536
_GRAPHS_KEPT = 16_384
_MAX_ROUNDS = 8

# A key was held to its limits when it was made; which ones, the reader of a key does not know.
_KEY_LIMITS = MoleculeLimits(max_atoms=MAX_ATOMS, max_characters=1 << 20)


def canonical_key(text: str, limits: MoleculeLimits = DEFAULT_LIMITS) -> str:
    """Name a molecule independently of how its SMILES is written.

    The key is RDKit's canonical isomeric SMILES without atom map numbers, which label atoms for
    reactions and do not change the molecule. It is a fixed point, ``canonical_key(key) == key``,
    and `packed_of` can encode it: a server that has a key has a good molecule.

    Results are cached; errors are not.

    Args:
        text: A SMILES.
        limits: How large it may be, as given and in its canonical form.

    Returns:
        The key. It depends on the RDKit release.

    Raises:
        MoleculeError: If the molecule cannot be read or encoded.
    """
    # Before the cache: what is not a string may not be hashable, and long text must not be kept.
    return _key(clean_smiles(text, limits), limits)


def as_written_key(text: str, limits: MoleculeLimits = DEFAULT_LIMITS) -> str:
    """Name a molecule as its SMILES is written: two spellings are two molecules.

    For encoders that were trained on what they were given. `packed_of` encodes it.

    Args:
        text: A SMILES.
        limits: How large it may be.

    Returns:
        The text without blanks around it.

    Raises:
        MoleculeError: If the molecule cannot be read or encoded.
    """
    smiles = clean_smiles(text, limits)
    atoms = len(_canonicalise(smiles)[1].degree)
    if atoms > limits.max_atoms:
        raise MoleculeError(smiles, "too_many_atoms", f"{atoms} atoms, at most {limits.max_atoms}")
    return smiles


def packed_of(key: str) -> PackedMolecule:
    """Look up or build the packed graph of a key, as the model gets it.

    Chirality tags and bond directions depend on the order of a SMILES' atoms, so the molecule is
    read again from the key and not from what the user wrote.

    Args:
        key: From `canonical_key`. Other SMILES are encoded as they are written.

    Returns:
        The packed graph, shared by all callers and read-only. `canonical_key` of the same
        process has usually left it in the cache, which holds 16,384 molecules.

    Raises:
        MoleculeError: If ``key`` is not a key.
    """
    return _canonicalise(clean_smiles(key, _KEY_LIMITS))[1]


def graph_of(key: str) -> MolGraph:
    """Look up or build the graph of a key: what `packed_of` packs.

    Returns:
        The graph, shared by all callers and read-only.

    Raises:
        MoleculeError: If ``key`` is not a key.
    """
    return _graph(clean_smiles(key, _KEY_LIMITS))


def molblock_to_smiles(block: str, limits: MoleculeLimits = DEFAULT_LIMITS) -> str:
    """Convert a V2000 or V3000 molblock to a canonical isomeric SMILES.

    Stereo groups ("or", "and"), coordinates and data fields have no place in a SMILES and are
    lost. The result is not checked for what the encoder supports; `canonical_key` does that.

    Raises:
        MoleculeError: If it is not a molblock of one molecule within the limits.
    """
    mol = parse_molblock(block, limits)
    _drop_atom_maps(mol)
    return _write(mol)


@lru_cache(maxsize=_KEYS_KEPT)
def _key(smiles: str, limits: MoleculeLimits) -> str:
    mol = parse_for_writing(smiles, limits)
    if ":" in smiles:
        _drop_atom_maps(mol)
    try:
        key = _fixed_point(_write(mol))
    except MoleculeError as error:
        featurize(mol, smiles)  # raises the same error, but with the user's atom numbers
        raise MoleculeError(smiles, error.kind, error.reason) from None
    if len(key) > limits.max_characters:
        reason = f"{len(key)} characters in canonical form, at most {limits.max_characters}"
        raise MoleculeError(smiles, "too_long", reason)
    return key


def _fixed_point(smiles: str) -> str:
    """Canonicalise until nothing changes; of texts that turn into one another, take the least.

    One round was enough for all of 36,157 staged molecules and for 35,898 random writings of
    half of them (RDKit 2026.09.1), so this costs what `packed_of` needs anyway. The guarantee is
    for the molecules and releases not tried.
    """
    seen = [smiles]
    for _ in range(_MAX_ROUNDS):
        following = _canonicalise(seen[-1])[0]
        if following in seen:
            return min(seen[seen.index(following) :])
        seen.append(following)
    raise MoleculeError(smiles, "unsupported", "RDKit finds no canonical form")


@lru_cache(maxsize=_GRAPHS_KEPT)
def _canonicalise(smiles: str) -> tuple[str, PackedMolecule]:
    """Read a SMILES once, for both its packed graph and its canonical form."""
    mol = parse_for_writing(smiles, _KEY_LIMITS)
    packed = featurize_packed(mol, smiles)
    return _write(mol), packed


@lru_cache(maxsize=_GRAPHS_KEPT)
def _graph(smiles: str) -> MolGraph:
    return featurize(parse_for_graph(smiles, _KEY_LIMITS), smiles)


def _drop_atom_maps(mol: Chem.Mol) -> None:
    for atom in mol.GetAtoms():
        atom.SetAtomMapNum(0)


def _write(mol: Chem.Mol) -> str:
    with QuietLog():
        return Chem.MolToSmiles(mol)
