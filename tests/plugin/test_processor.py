"""Packed molecules survive the way to the engine's process."""

import pytest
import torch
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from moltc_vllm.chem import canonical_key, graph_of
from moltc_vllm.models import BatchMolGraph, MoltcConfig
from moltc_vllm.plugin.model import _graphs_at
from moltc_vllm.plugin.molecules import EncoderInput
from moltc_vllm.plugin.processor import MoleculeProcessor


class Info:
    @staticmethod
    def get_hf_config():
        return MoltcConfig(molecule_token_id=5)


def processor() -> MoleculeProcessor:
    bare = object.__new__(MoleculeProcessor)
    bare.info = Info()
    return bare


def packed_feature(keys):
    molecules = [EncoderInput(key, number) for number, key in enumerate(keys)]
    return processor()._call_hf_processor({"molecules": molecules}, {})


@pytest.mark.parametrize("smiles", [["O"], ["O", "[Na+]"], ["O", "CCO"], ["CCO", "[Na+].[Cl-]"]])
def test_packed_fields_are_serialised_and_make_the_same_batch(smiles):
    keys = [canonical_key(one) for one in smiles]
    feature = packed_feature(keys)
    fields = processor()._get_mm_fields_config(feature, {})
    assert fields.keys() == feature.keys()
    decoder = MsgpackDecoder(dict[str, torch.Tensor])
    columns = decoder.decode(MsgpackEncoder().encode(dict(feature)))
    assert columns["projector"].tolist() == list(range(len(keys)))
    got = BatchMolGraph.from_packed(
        *(columns[name] for name in ("atoms", "degree", "source", "bond_code", "num_atoms"))
    )
    assert_same(got, keys)


def assert_same(got, keys):
    expected = BatchMolGraph.from_graphs([graph_of(key) for key in keys])
    assert torch.equal(got.atoms, expected.atoms)
    assert torch.equal(got.molecule_offsets, expected.molecule_offsets)
    for a, b in zip(got.bonds, expected.bonds, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("places", [[0], [1], [3], [0, 2], [1, 2, 3], [0, 1, 2, 3]], ids=str)
def test_some_molecules_of_a_batch(places):
    keys = [canonical_key(one) for one in ("CCO", "O", "c1ccccc1", "[Na+].[Cl-]")]
    feature = packed_feature(keys)
    assert len(set(map(tuple, feature["identity"].tolist()))) == len(keys)
    assert_same(_graphs_at(places, dict(feature)), [keys[place] for place in places])
