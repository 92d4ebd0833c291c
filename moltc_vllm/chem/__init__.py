"""Molecules: SMILES to validated graphs and canonical keys, with RDKit, numpy and numba only.

Importing the package does not import numba; the first molecule that is featurized does.
"""

from moltc_vllm.chem.chunk import LibraryRow
from moltc_vllm.chem.descriptor_vector import DESCRIPTOR_NAMES
from moltc_vllm.chem.errors import ErrorKind, MoleculeError
from moltc_vllm.chem.featurize import featurize, featurize_packed
from moltc_vllm.chem.graph import (
    ATOM_TYPES,
    BOND_DIRECTIONS,
    BOND_TYPES,
    CHIRALITIES,
    MAX_ATOMS,
    MolGraph,
)
from moltc_vllm.chem.library import featurize_library
from moltc_vllm.chem.limits import DEFAULT_LIMITS, MoleculeLimits
from moltc_vllm.chem.molecule import (
    as_written_key,
    canonical_key,
    graph_of,
    molblock_to_smiles,
    packed_of,
)
from moltc_vllm.chem.packed import PackedMolecule, pack
from moltc_vllm.chem.parse import parse_molblock, parse_smiles
from moltc_vllm.chem.standardize import (
    Standardized,
    molecule_notes,
    pair_notes,
    standardize,
)
from moltc_vllm.utils.standardization import STANDARDIZATIONS, Standardization

__all__ = [
    "ATOM_TYPES",
    "BOND_DIRECTIONS",
    "BOND_TYPES",
    "CHIRALITIES",
    "DEFAULT_LIMITS",
    "DESCRIPTOR_NAMES",
    "MAX_ATOMS",
    "STANDARDIZATIONS",
    "ErrorKind",
    "LibraryRow",
    "MolGraph",
    "MoleculeError",
    "MoleculeLimits",
    "PackedMolecule",
    "Standardization",
    "Standardized",
    "as_written_key",
    "canonical_key",
    "featurize",
    "featurize_library",
    "featurize_packed",
    "graph_of",
    "molblock_to_smiles",
    "molecule_notes",
    "pack",
    "packed_of",
    "pair_notes",
    "parse_molblock",
    "parse_smiles",
    "standardize",
]
