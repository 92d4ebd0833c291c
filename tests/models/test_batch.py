"""Batches of molecular graphs."""

import numpy as np
import pytest

from moltc_vllm.chem import canonical_key, graph_of, packed_of
from moltc_vllm.models.batch import BatchMolGraph, split_by_atoms

SMILES = ["CC(=O)Oc1ccccc1C(=O)O", "O", "[Na+].[Cl-]", "C[C@H](N)C(=O)O", "F/C=C/F", "[H][H]"]


@pytest.mark.parametrize(
    ("max_atoms", "expected"), [(100, [4]), (7, [2, 1, 1]), (3, [1, 1, 1, 1]), (1, [1, 1, 1, 1])]
)
def test_split_by_atoms_limits_batches_and_keeps_order(max_atoms, expected):
    molecules = [packed_of(canonical_key(smiles)) for smiles in ("CCO", "CCCC", "c1ccccc1", "CC")]
    batches = split_by_atoms(molecules, max_atoms)
    assert [len(batch) for batch in batches] == expected
    assert [molecule for batch in batches for molecule in batch] == molecules
    assert split_by_atoms([], max_atoms) == []


def test_batch_holds_atoms_and_bonds_of_every_graph():
    graphs = [graph_of(canonical_key(smiles)) for smiles in SMILES]
    batch = BatchMolGraph.from_graphs(graphs)
    assert batch.num_molecules == len(SMILES)
    for index, graph in enumerate(graphs):
        start, stop = batch.molecule_offsets[index : index + 2].tolist()
        assert stop - start == graph.num_atoms
        edge_index, edge_attr = graph.directed()
        expected = sorted(
            (int(source), int(target), int(bond_type) * 3 + int(direction))
            for (source, target), (bond_type, direction) in zip(
                np.asarray(edge_index.T), np.asarray(edge_attr), strict=True
            )
        )
        got = sorted(
            (int(batch.bonds.source[edge]) - start, atom - start, int(batch.bonds.code[edge]))
            for atom in range(start, stop)
            for edge in range(int(batch.bonds.offsets[atom]), int(batch.bonds.offsets[atom + 1]))
        )
        assert got == expected


def test_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one molecule"):
        BatchMolGraph.from_graphs([])
