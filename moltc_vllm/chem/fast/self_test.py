"""Compare the compiled reader with the Python loops under the installed RDKit release."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy.typing as npt
from rdkit import Chem

from moltc_vllm.chem.errors import MoleculeError
from moltc_vllm.chem.fast.partial_sanitize import try_parse_for_graph, try_parse_for_writing
from moltc_vllm.chem.featurize_loops import featurize_loops
from moltc_vllm.chem.graph import MolGraph
from moltc_vllm.chem.packed import PackedMolecule, pack
from moltc_vllm.chem.rdkit_log import QuietLog

FIELDS: Final = (
    "atomic_number",
    "chirality",
    "bond_index",
    "bond_type",
    "bond_direction",
    "detail",
)

MOLECULES: Final = (
    "C",
    "[Og]",
    "[H][H]",
    "[H+].[2H]OC",
    "CC(=O)[O-].[NH3+]CCO.[Na+].[Cl-]",
    "[13CH3][14C@H](N)C(=O)O",
    "C[CH]C[CH2].[O].[C].[CH3+].[CH3-].C=[CH]",  # radicals, carbocation, carbanion
    "NC=O.Oc1ccccc1.[O-]c1ccccc1.CS(=O)C.CS(=O)(=O)Nc1ccccc1.C=C=C.[CH2-]C=O",  # hybridization
    "[N+4].[O-2].[Al+3].C1CCCCCCC1.C1CCCCCCCC1.C1CCCCCC1.C1CC2CC1CC2",  # charges, ring sizes
    "C[N+](=O)[O-].CN(=O)=O.F[P-](F)(F)(F)(F)F",  # the second nitro group is cleaned up
    "C#N.CC#CC=C=C",
    "F/C=C/C=C\\Cl",
    "C/C=C/[C@H](N)C1CC1",
    "CC/C(=N\\O)/C",
    "Cc1cc(C)[nH]/c(=N\\C(=N)NC)n1",  # stereogenic only because of the hydrogen's position
    "O=S(C)[C@@H]1CC[C@](F)(Cl)C1",
    "C[S@](=O)CC[P@](=O)(C)O",
    "C[C@H](C)O.F/C=C(/C)C.C[N@](N)O",  # meaningless marks, which sanitization clears
    "C[C@H]1CC[C@@H](C)CC1",  # each center is stereogenic only because of the other
    "C1=CC=CC=C1.c1ccccc1-c1cc[nH]c1",
    "c1ccc2c(c1)[nH]c1ccccc12",
    "O=c1cc[nH]c(=O)[nH]1.[nH]1c(=O)c2c(ncn2C)n(C)c1=O",
    "C12C3C4C1C5C2C3C45",
    "CN1CCC[C@H]1c1cccnc1.OC(=O)[C@H](O)[C@@H](O)C(=O)O",
    "c1cc[se]c1.[SiH4].B(O)O.[BH4-].I(=O)(=O)O",
    "[Fe+2].C[Hg]C.[Pt](Cl)(Cl)(N)N.O=[U]=O",
    "CCN(CC)C(=O)[C@@H]1C=C2c3cccc4[nH]cc(c34)C[C@H]2N(C)C1",
    "C" * 255,  # the longest with one-byte atom indices
    "C" * 256,
    "C1CC1" * 60 + "C[C@H](F)/C=C/Cl",  # fewer than 256 atoms, but at least 256 bonds
    "N[C@@H](C)C(=O)" * 60 + "O",
)
"""Molecules that both paths must read; together they reach every branch of `rdkit_pickle`."""


class GraphReader(Protocol):
    """Interface of the reader under test; see `compiled.CompiledReader`."""

    def featurize(self, mol: Chem.Mol) -> MolGraph | None:
        """Compute the graph of a molecule, or None if it is not supported."""

    def featurize_packed(self, mol: Chem.Mol) -> PackedMolecule | None:
        """Compute the packed graph of a molecule, or None if it is not supported."""


def first_difference(reader: GraphReader) -> str | None:
    """Describe the first disagreement on `MOLECULES`; None if there is no disagreement."""
    differences = (find_difference(reader, smiles, must_support=True) for smiles in MOLECULES)
    return next((text for text in differences if text is not None), None)


def find_difference(reader: GraphReader, smiles: str, must_support: bool = False) -> str | None:
    """Describe the first disagreement between a reader and the Python loops on one molecule.

    Args:
        reader: Reader under test.
        smiles: SMILES that RDKit can parse.
        must_support: Whether a molecule that the reader does not support is a disagreement.
    """
    with QuietLog():
        default = Chem.MolFromSmiles(smiles)
        try:
            expected = featurize_loops(default, smiles)
        except MoleculeError:
            expected = None
        for name, mol in _parsed_variants(smiles, default):
            graph, packed = reader.featurize(mol), reader.featurize_packed(mol)
            if graph is None or packed is None:
                if must_support or (graph is None) != (packed is None):
                    return f"{name}, {smiles[:80]!r} is not supported by the compiled reader"
            elif expected is None:
                return f"{name}, {smiles[:80]!r} is read although no feature table has it"
            elif not same_graph(graph, expected) or not same_packed(packed, pack(expected)):
                return f"{name}, the graph of {smiles[:80]!r} differs"
        written = try_parse_for_writing(smiles)
        if written is not None and Chem.MolToSmiles(written) != Chem.MolToSmiles(default):
            return f"canonical SMILES of {smiles[:80]!r} differs"
    return None


def same_graph(first: MolGraph, second: MolGraph) -> bool:
    """Compare values, shapes and types of all arrays."""
    return all(_same_array(getattr(first, name), getattr(second, name)) for name in FIELDS)


def same_packed(first: PackedMolecule, second: PackedMolecule) -> bool:
    """Compare values, shapes and types of all arrays."""
    pairs = itertools.zip_longest(first.arrays(), second.arrays())
    return all(a is not None and b is not None and _same_array(a, b) for a, b in pairs)


def _parsed_variants(smiles: str, default: Chem.Mol) -> Iterator[tuple[str, Chem.Mol]]:
    yield "parsed by default", default
    for name, try_parse in (
        ("parsed for graphs", try_parse_for_graph),
        ("parsed for writing", try_parse_for_writing),
    ):
        mol = try_parse(smiles)
        if mol is not None:
            yield name, mol


def _same_array(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
