"""All kernel backends and the published implementation give the same encodings."""

import sys
from pathlib import Path

import pytest
import torch

from moltc_vllm.models import BatchMolGraph, MoleculeEncoder, MoltcConfig, QFormerConfig
from moltc_vllm.models.molecule_encoder import initialize_molecule_weights
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.tasks.engine import Pair
from tests.kernels.cases import rms_ratio
from tests.kernels.interpreter import import_kernels
from tests.molecules import drug_pairs, real_graphs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TOLERANCE = 1e-4


def random_encoder(**qformer) -> MoleculeEncoder:
    """The published GIN with random weights and random batch-norm statistics."""
    torch.manual_seed(0)
    encoder = MoleculeEncoder(MoltcConfig(qformer_config=QFormerConfig(**qformer))).eval()
    initialize_molecule_weights(encoder, std=0.06)
    for layer in encoder.graph_encoder.layers:
        layer.norm.running_mean.normal_()
        layer.norm.running_var.uniform_(0.5, 2.0)
    return encoder


SMALL = {"num_layers": 3, "hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 384}


@pytest.mark.parametrize(
    ("molecules", "sizes"),
    [
        pytest.param(16, SMALL, id="16 molecules, small Q-Former"),
        pytest.param(500, {}, id="500 molecules, published size", marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(3600)
def test_backends_give_same_tokens(molecules, sizes, monkeypatch):
    import_kernels()
    encoder, graphs = random_encoder(**sizes), real_graphs(molecules)
    batch = BatchMolGraph.from_graphs(graphs)
    got = {}
    for backend in ("naive", "cpu", "triton"):
        monkeypatch.setenv("MOLTC_KERNELS", backend)
        with torch.no_grad():
            got[backend] = encoder(batch)
    ratios = {name: rms_ratio(got[name], got["naive"]) for name in ("cpu", "triton")}
    print(f"\n{molecules} molecules, {len(batch.atoms)} atoms: relative RMS to naive {ratios}")
    assert max(ratios.values()) < TOLERANCE
    assert torch.cdist(got["cpu"].flatten(1), got["cpu"].flatten(1)).max() > 0.1  # molecules differ


def test_published_implementation_gives_same_tokens(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from pyg_reference import PublishedBatch, PublishedEncoder

    encoder = random_encoder(**SMALL)
    batch = BatchMolGraph.from_graphs(real_graphs(60))
    with torch.no_grad():
        expected = PublishedEncoder(encoder)(PublishedBatch.of(batch), batch.molecule_offsets)
        assert rms_ratio(encoder(batch), expected) < 1e-5


def test_chunked_encoding_equals_single_molecules(monkeypatch):
    monkeypatch.setattr("moltc_vllm.models.qformer._CPU_CHUNK_SIZE", 7)
    encoder, graphs = random_encoder(**SMALL), real_graphs(22)
    with torch.no_grad():
        together = encoder(BatchMolGraph.from_graphs(graphs))
        alone = torch.cat([encoder(BatchMolGraph.from_graphs([graph])) for graph in graphs])
    assert rms_ratio(together, alone) < 1e-5


def test_answers_do_not_depend_on_backend(tiny, monkeypatch):
    import_kernels()
    pairs = [Pair(row, pair) for row, pair in enumerate(drug_pairs(3))]
    answers = {}
    for backend in ("naive", "cpu", "triton"):
        monkeypatch.setenv("MOLTC_KERNELS", backend)
        answers[backend] = [answer for _, answer in TorchEngine(tiny).submit("solvation", pairs)]
    for backend in ("cpu", "triton"):
        for got, expected in zip(answers[backend], answers["naive"], strict=True):
            assert (got.text, got.value) == (expected.text, expected.value)
            assert got.confidence == pytest.approx(expected.confidence, rel=1e-3)


def test_encoder_benchmark_measures_and_compares(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import encoder as benchmark

    threads = torch.get_num_threads()
    arguments = "encoder.py --batches 1 3 --rounds 2 --parts gin --sets approved --json"
    monkeypatch.setattr(sys, "argv", arguments.split())
    try:
        benchmark.main()
    finally:
        torch.set_num_threads(threads)
    last = capsys.readouterr().out.splitlines()[-1]
    assert '"part": "gin"' in last
    wrong = {"ours": lambda: torch.ones(3), "published": lambda: torch.zeros(3) + 1.01}
    with pytest.raises(AssertionError, match="results differ"):
        benchmark.measure(wrong, 2)
