"""RDKit molecule to `MolGraph` or `PackedMolecule`: REFERENCE's feature tables, nothing else."""

from __future__ import annotations

from rdkit import Chem

from moltc_vllm.chem.fast.dispatch import compiled_reader
from moltc_vllm.chem.featurize_loops import featurize_loops
from moltc_vllm.chem.graph import MolGraph
from moltc_vllm.chem.packed import PackedMolecule, pack


def featurize(mol: Chem.Mol, text: str | None = None) -> MolGraph:
    """Look up every atom and bond in the encoder's feature tables.

    Atoms and bonds keep RDKit's order. Isotopes, charges and hydrogen counts are no features.
    Bond directions exist only in a molecule that was read from a SMILES, so one from a molblock
    should go through `molblock_to_smiles`.

    Args:
        mol: A sanitised molecule, not kekulised.
        text: What an error calls the molecule; its SMILES if not given.

    Returns:
        The graph.

    Raises:
        MoleculeError: Kind ``unsupported`` if an atom or a bond is in no table (dummy atoms;
            dative, quadruple and zero-order bonds; chirality other than tetrahedral), kind
            ``empty`` if there is no atom.

    Source: the published ``smiles2graph`` (MolCA, MolTC), whose lists raise for the same things.
    """
    reader = compiled_reader()
    graph = None if reader is None else reader.graph(mol)
    return featurize_loops(mol, text) if graph is None else graph


def featurize_packed(mol: Chem.Mol, text: str | None = None) -> PackedMolecule:
    """Do as `featurize` and `pack` do, in one go."""
    reader = compiled_reader()
    packed = None if reader is None else reader.packed(mol)
    return pack(featurize_loops(mol, text)) if packed is None else packed
