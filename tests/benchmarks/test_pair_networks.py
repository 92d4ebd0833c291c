"""Networks of pairs: accuracy, order of training, and symmetry."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from baselines import pair_networks
from baselines.molecule_encoders import GraphNetwork, SmilesLanguageModel
from baselines.molecule_features import FeatureError, FeatureStore
from baselines.pair_networks import NetworkSettings, settings_of

from moltc_vllm.data import Row
from moltc_vllm.tasks import get_task
from tests.benchmarks.test_rates import make_problem

SMALL = NetworkSettings(("morgan",), width=16, epochs=1, batch_size=32, learning_rate=1e-2)
ENCODERS = {
    "features": SMALL,
    "graph": replace(SMALL, features=(), encoder="graph"),
    "smiles": replace(SMALL, features=(), encoder="smiles", language_epochs=1),
}
CHAINS = ["C" * length for length in range(1, 9)]
ALCOHOLS = ["C" * length + "O" for length in range(1, 9)]


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(pair_networks, "MIN_STEPS", 60)


def solve(problem, settings):
    return pair_networks.solve(problem, settings, FeatureStore(), seed=0, threads=1)


@pytest.mark.parametrize("encoder", ["features", "graph"])
def test_network_learns_numbers(encoder):
    pytest.importorskip("torch_geometric")
    train = [(a, b, 5.0 if a in ALCOHOLS else -5.0) for a in CHAINS + ALCOHOLS for b in "ON"]
    test = [("CC(C)CO", "O", 5.0), ("CC(C)C", "O", -5.0)]
    solution = solve(make_problem("solubility", train, test), ENCODERS[encoder])
    alcohol, chain = (answer.value for answer in solution.answers.values())
    assert alcohol > 2 > -2 > chain
    assert (solution.train_rows, solution.valid_rows) == (len(train), 0)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_order_has_no_meaning_in_symmetric_task(encoder):
    pytest.importorskip("torch_geometric")
    train = [(a, b, index % 2) for index, a in enumerate(CHAINS) for b in ALCOHOLS]
    test = [("CCN", "CCO", 1), ("CCO", "CCN", 1), ("CCS", "CO", 0), ("CO", "CCS", 0)]
    answers = list(solve(make_problem("ddi", train, test), ENCODERS[encoder]).answers.values())
    for first, second in (answers[:2], answers[2:]):
        assert first.label_id == second.label_id
        assert first.confidence == pytest.approx(second.confidence, abs=1e-6)
    assert answers[0].confidence != pytest.approx(answers[2].confidence, abs=1e-6)


def test_network_learns_labels_that_are_not_consecutive():
    train = [(a, b, 47 if a in ALCOHOLS else 4) for a in CHAINS + ALCOHOLS for b in "ON"]
    test = [("CC(C)CO", "O", 47), ("CC(C)C", "O", 4)]
    solution = solve(make_problem("ddi_type", train, test), SMALL)
    assert [answer.label_id for answer in solution.answers.values()] == [47, 4]


def test_computed_targets_are_trained_on_first(monkeypatch):
    trained = []

    def train(self, rows, epochs, learning_rate):
        trained.append(([row.target for row in rows], epochs, learning_rate))

    monkeypatch.setattr(pair_networks.Trainer, "train", train)
    problem = make_problem("solvation", [("C", "O", -1.0)], [("CC", "O", -2.0)])
    problem = replace(problem, computed=(Row(1, ("CCC", "O"), -3.0),))
    settings = replace(SMALL, computed_epochs=2, epochs=7)
    assert solve(problem, settings).train_rows == 2
    rate = settings.learning_rate
    assert trained == [([-3.0], 2, rate), ([-1.0], 7, rate / 2)]


def test_settings_are_those_of_the_task():
    solvation, types = (settings_of(get_task(name)) for name in ("solvation", "ddi_type"))
    assert (solvation.computed_epochs, types.computed_epochs) == (2, 0)
    assert solvation.dropout < types.dropout
    assert (solvation.epochs, types.epochs) == (30, 10)
    assert settings_of(get_task("solvation"), encoder="graph").epochs == 15
    changed = settings_of(get_task("ddi"), ["morgan"], dropout=0.5, input_dropout=0.4)
    assert (changed.features, changed.dropout, changed.input_dropout) == (("morgan",), 0.5, 0.4)


def test_graph_network_sees_bonds_and_charges():
    pytest.importorskip("torch_geometric")
    molecules = ["CCO", "OCC", "CC=O", "CC[O-]", "[Na+]"]
    encoder = GraphNetwork(molecules, dropout=0.0).eval()
    with torch.inference_mode():
        encoded = encoder(torch.arange(len(molecules)))
        alone = encoder(torch.tensor([3]))
    assert torch.allclose(encoded[0], encoded[1], atol=1e-5)
    for other in (2, 3):
        assert not torch.allclose(encoded[0], encoded[other], atol=1e-3)
    assert torch.allclose(encoded[3], alone[0], atol=1e-5)
    with pytest.raises(FeatureError, match="cannot read 'C1'"):
        GraphNetwork(["C1"], dropout=0.0)


def test_language_model_ignores_padding_and_sees_only_earlier_characters():
    encoder = SmilesLanguageModel(["CCO", "CCN", "C" * 200], dropout=0.0).eval()
    with torch.inference_mode():
        together, alone = encoder(torch.tensor([0, 2])), encoder(torch.tensor([0]))
        _, states = encoder._states(torch.tensor([0, 1]))
    assert torch.allclose(together[0], alone[0], atol=1e-5)
    assert torch.allclose(states[0, :3], states[1, :3], atol=1e-5)  # they differ at the end
    assert not torch.allclose(states[0, 3], states[1, 3], atol=1e-3)


def test_language_model_learns_the_next_character():
    molecules = ["CO" * length for length in range(1, 9)]
    torch.manual_seed(0)
    encoder = SmilesLanguageModel(molecules, dropout=0.0)
    before = encoder.language_loss(torch.arange(8)).item()
    problem = make_problem("solubility", [(m, "O", 1.0) for m in molecules], [("CO", "C", 1.0)])
    trainer = pair_networks.Trainer(problem, ENCODERS["smiles"], encoder, molecules, seed=0)
    trainer.train_language(encoder, len(molecules))
    assert encoder.language_loss(torch.arange(8)).item() < before / 2


def test_same_seed_gives_same_answers():
    train = [(a, b, float(len(a))) for a in CHAINS for b in ALCOHOLS]
    problem = make_problem("solubility", train, [("CCN", "O", 1.0)])
    values = []
    for seed in (0, 0, 1):
        solution = pair_networks.solve(problem, SMALL, FeatureStore(), seed=seed, threads=1)
        values += [answer.value for answer in solution.answers.values()]
    assert values[0] == values[1] != values[2]
    assert np.isfinite(values).all()
