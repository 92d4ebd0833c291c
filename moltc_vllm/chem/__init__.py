"""Molecules: SMILES in, checked graphs and canonical keys out. RDKit and numpy only."""

from moltc_vllm.chem.errors import ErrorKind, MoleculeError
from moltc_vllm.chem.featurize import featurize
from moltc_vllm.chem.graph import (
    ATOM_TYPES,
    BOND_DIRECTIONS,
    BOND_TYPES,
    CHIRALITIES,
    MAX_ATOMS,
    MolGraph,
)
from moltc_vllm.chem.limits import DEFAULT_LIMITS, MoleculeLimits
from moltc_vllm.chem.molecule import canonical_key, graph_of, molblock_to_smiles
from moltc_vllm.chem.parse import parse_molblock, parse_smiles

__all__ = [
    "ATOM_TYPES",
    "BOND_DIRECTIONS",
    "BOND_TYPES",
    "CHIRALITIES",
    "DEFAULT_LIMITS",
    "MAX_ATOMS",
    "ErrorKind",
    "MolGraph",
    "MoleculeError",
    "MoleculeLimits",
    "canonical_key",
    "featurize",
    "graph_of",
    "molblock_to_smiles",
    "parse_molblock",
    "parse_smiles",
]
