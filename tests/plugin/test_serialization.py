"""Serialization of molecules for the engine's process."""

import numpy as np
import pytest
import torch
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from moltc_vllm.chem import canonical_key, packed_of
from moltc_vllm.plugin.modality.serialization import pack_molecule, unpack_molecule
from tests.molecules import DRUGS


@pytest.mark.parametrize("smiles", ["O", "CCO", "[Na+].[Cl-]", "F/C=C/F", DRUGS["warfarin"]])
@pytest.mark.parametrize("descriptors", [False, True], ids=["graph", "descriptors"])
def test_unpack_restores_packed_molecule(smiles, descriptors):
    key = canonical_key(smiles)
    graph = packed_of(key, descriptors=descriptors)
    row = pack_molecule(key, 3, graph)
    assert len(row) == 32 + sum(array.nbytes for array in graph.arrays())
    (received,) = MsgpackDecoder(list[torch.Tensor]).decode(MsgpackEncoder().encode([row]))
    # A row of a batch may begin at an odd address.
    for tensor in (received, torch.cat([torch.zeros(1, dtype=torch.uint8), row])[1:]):
        molecule = unpack_molecule(tensor)
        assert molecule.projector == 3
        assert (molecule.graph().descriptors is not None) == descriptors
        for actual, expected in zip(molecule.graph().arrays(), graph.arrays(), strict=True):
            assert actual.dtype == expected.dtype
            assert np.array_equal(actual, expected)


def test_molecule_id_depends_on_molecule_only():
    keys = [canonical_key(smiles) for smiles in ("CCO", "O", "c1ccccc1", "CCO")]
    rows = [pack_molecule(key, index, packed_of(key)) for index, key in enumerate(keys)]
    ids = [unpack_molecule(row).molecule_id for row in rows]
    assert ids[0] == ids[3]
    assert len(set(ids)) == 3
