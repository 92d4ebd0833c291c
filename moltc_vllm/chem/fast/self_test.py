"""Does the compiled reader make the same graphs as the plain loops, with this RDKit?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy.typing as npt
from rdkit import Chem

from moltc_vllm.chem.errors import MoleculeError
from moltc_vllm.chem.fast.partial_sanitize import read_for_graph, read_for_writing
from moltc_vllm.chem.featurize_loops import featurize_loops
from moltc_vllm.chem.graph import MolGraph
from moltc_vllm.chem.packed import PackedMolecule, pack
from moltc_vllm.chem.rdkit_log import QuietLog

FIELDS: Final = ("atomic_number", "chirality", "bond_index", "bond_type", "bond_direction")

MOLECULES: Final = (
    "C",
    "[Og]",
    "[H][H]",
    "[H+].[2H]OC",
    "CC(=O)[O-].[NH3+]CCO.[Na+].[Cl-]",
    "[13CH3][14C@H](N)C(=O)O",
    "C[CH]C[CH2].[O]",  # radicals
    "C[N+](=O)[O-].CN(=O)=O.F[P-](F)(F)(F)(F)F",  # one is cleaned up to the other
    "C#N.CC#CC=C=C",
    "F/C=C/C=C\\Cl",
    "C/C=C/[C@H](N)C1CC1",
    "CC/C(=N\\O)/C",
    "Cc1cc(C)[nH]/c(=N\\C(=N)NC)n1",  # two sides only by where the hydrogen is
    "O=S(C)[C@@H]1CC[C@](F)(Cl)C1",
    "C[S@](=O)CC[P@](=O)(C)O",
    "C[C@H](C)O.F/C=C(/C)C.C[N@](N)O",  # marks that mean nothing and are cleared
    "C[C@H]1CC[C@@H](C)CC1",  # each centre only by the other
    "C1=CC=CC=C1.c1ccccc1-c1cc[nH]c1",
    "c1ccc2c(c1)[nH]c1ccccc12",
    "O=c1cc[nH]c(=O)[nH]1.[nH]1c(=O)c2c(ncn2C)n(C)c1=O",
    "C12C3C4C1C5C2C3C45",
    "CN1CCC[C@H]1c1cccnc1.OC(=O)[C@H](O)[C@@H](O)C(=O)O",
    "c1cc[se]c1.[SiH4].B(O)O.[BH4-].I(=O)(=O)O",
    "[Fe+2].C[Hg]C.[Pt](Cl)(Cl)(N)N.O=[U]=O",
    "CCN(CC)C(=O)[C@@H]1C=C2c3cccc4[nH]cc(c34)C[C@H]2N(C)C1",
    "C" * 255,  # the last with one byte per atom number
    "C" * 256,
    "C1CC1" * 60 + "C[C@H](F)/C=C/Cl",  # fewer than 256 atoms, as many bonds or more
    "N[C@@H](C)C(=O)" * 60 + "O",
)
"""Read by both ways; every branch of the format that `binary` knows is in one of them."""


class Reader(Protocol):
    """What is tested; see `compiled.CompiledReader`."""

    def graph(self, mol: Chem.Mol) -> MolGraph | None:
        """Graph of a molecule."""

    def packed(self, mol: Chem.Mol) -> PackedMolecule | None:
        """The same, packed."""


def first_difference(reader: Reader) -> str | None:
    """Describe the first disagreement on `MOLECULES`, None if there is none."""
    differences = (difference(reader, smiles, understood=True) for smiles in MOLECULES)
    return next((one for one in differences if one is not None), None)


def difference(reader: Reader, smiles: str, understood: bool = False) -> str | None:
    """Describe the first disagreement between reader and plain loops on a molecule.

    Args:
        reader: The reader.
        smiles: Something that RDKit can read.
        understood: Whether it is one if the reader leaves the molecule to the loops.
    """
    with QuietLog():
        plain = Chem.MolFromSmiles(smiles)
        try:
            expected = featurize_loops(plain, smiles)
        except MoleculeError:
            expected = None
        for name, mol in _readings(smiles, plain):
            graph, packed = reader.graph(mol), reader.packed(mol)
            if graph is None or packed is None:
                if understood or (graph is None) != (packed is None):
                    return f"{name}, {smiles[:80]!r} is not understood"
            elif expected is None:
                return f"{name}, {smiles[:80]!r} is understood but in no table"
            elif not same_graph(graph, expected) or not same_packed(packed, pack(expected)):
                return f"{name}, {smiles[:80]!r} differs"
        written = read_for_writing(smiles)
        if written is not None and Chem.MolToSmiles(written) != Chem.MolToSmiles(plain):
            return f"canonical SMILES of {smiles[:80]!r} differs"
    return None


def same_graph(one: MolGraph, other: MolGraph) -> bool:
    """Compare values and types of all arrays."""
    return all(_same(getattr(one, name), getattr(other, name)) for name in FIELDS)


def same_packed(one: PackedMolecule, other: PackedMolecule) -> bool:
    """Compare values and types of all arrays."""
    return all(_same(getattr(one, name), getattr(other, name)) for name in one._fields)


def _readings(smiles: str, plain: Chem.Mol) -> Iterator[tuple[str, Chem.Mol]]:
    yield "plainly read", plain
    for name, read in (("for graphs", read_for_graph), ("for writing", read_for_writing)):
        mol = read(smiles)
        if mol is not None:
            yield f"read {name}", mol


def _same(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
