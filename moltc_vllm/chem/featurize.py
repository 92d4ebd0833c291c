"""Featurize RDKit molecules: look up atoms and bonds in the encoder's feature tables."""

from __future__ import annotations

from rdkit import Chem

from moltc_vllm.chem.fast.dispatch import compiled_reader
from moltc_vllm.chem.featurize_loops import featurize_loops
from moltc_vllm.chem.graph import MolGraph
from moltc_vllm.chem.packed import PackedMolecule, pack


def featurize(mol: Chem.Mol, text: str | None = None) -> MolGraph:
    """Look up every atom and bond in the encoder's feature tables.

    Atoms and bonds keep RDKit's order. Isotopes are not features. Charges, hydrogens, rings,
    hybridization and radicals are in the detail code, which published encoders ignore.
    RDKit sets bond directions only when it parses a SMILES, so a molecule from a molblock should
    be converted by `molblock_to_smiles` first.

    Args:
        mol: Sanitized molecule, not kekulized.
        text: Text that an error quotes as the molecule; by default its SMILES.

    Returns:
        The graph.

    Raises:
        MoleculeError: Kind ``unsupported`` if an atom or bond is in no table (dummy atoms;
            dative, quadruple and zero-order bonds; chirality other than tetrahedral), kind
            ``empty`` if there are no atoms.

    Source: the published ``smiles2graph`` (MolCA, MolTC), whose lists raise in the same cases;
    ``docs/concepts/published-model.md``, "Molecule graph features".
    """
    reader = compiled_reader()
    graph = None if reader is None else reader.featurize(mol)
    return featurize_loops(mol, text) if graph is None else graph


def featurize_packed(mol: Chem.Mol, text: str | None = None) -> PackedMolecule:
    """Compute ``pack(featurize(mol, text))`` without building the graph in between.

    Args:
        mol: Sanitized molecule, not kekulized.
        text: Text that an error quotes as the molecule; by default its SMILES.

    Returns:
        The packed graph, read-only.

    Raises:
        MoleculeError: Same conditions as for `featurize`.
    """
    reader = compiled_reader()
    packed = None if reader is None else reader.featurize_packed(mol)
    return pack(featurize_loops(mol, text)) if packed is None else packed
