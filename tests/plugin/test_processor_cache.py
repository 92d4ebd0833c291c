"""The processor cache evicts the least recently used molecules."""

from types import SimpleNamespace

import torch

from moltc_vllm.plugin.modality.molecules import EncoderInput
from moltc_vllm.plugin.modality.processor_cache import ProcessedMolecule, ProcessorCache


def processed(size_bytes):
    tensor = torch.zeros(size_bytes, dtype=torch.uint8)
    return ProcessedMolecule("hash", {"molecule_graph": SimpleNamespace(data=tensor)})


def test_cache_evicts_least_recently_used_molecules():
    cache = ProcessorCache(capacity_bytes=20_000)  # four molecules of this size
    drug, *library = (EncoderInput(letter, 0) for letter in "ABCDEFG")
    for molecule in library:
        assert cache.get_all([drug, molecule]) is None
        cache.add([(drug, processed(2_000)), (molecule, processed(2_000))])
    cached = [molecule.key for molecule in (drug, *library) if molecule in cache]
    assert cached == ["A", "E", "F", "G"]


def test_clear_evicts_all_molecules():
    cache = ProcessorCache(capacity_bytes=20_000)
    molecule = EncoderInput("A", 0)
    cache.add([(molecule, processed(2_000))])
    cache.clear()
    assert molecule not in cache


def test_cache_does_not_keep_molecule_above_its_capacity():
    cache = ProcessorCache(capacity_bytes=20_000)
    molecule = EncoderInput("A", 0)
    cache.add([(molecule, processed(19_000))])
    assert molecule not in cache
