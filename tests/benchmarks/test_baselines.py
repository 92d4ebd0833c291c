"""Answers of every baseline, and the data that it may see."""

import csv
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from baselines import chemprop_pairs, moltc, trivial
from baselines.answers import label_answers
from baselines.chemprop_pairs import ChempropError
from baselines.moltc import PredictionsError, UnseenError
from baselines.problem import read_published

from moltc_vllm.data import Row
from moltc_vllm.evaluate.predictions import write_predictions
from moltc_vllm.evaluate.scoring import evaluate
from moltc_vllm.tasks import get_task
from tests.benchmarks.small_datasets import (
    DDI_COLUMNS,
    SOLUBILITY_COLUMNS,
    write_dataset,
    write_interactions,
    write_solubility,
)
from tests.evaluate.fakes import FakeEngine

# An interpreter that records the commands of chemprop. It predicts the sum of the lengths of both
# SMILES, with the first one counted twice, divided by a scale.
FAKE_CHEMPROP = """#!{python}
import csv, json, pathlib, sys
arguments = sys.argv[3:]
folder = pathlib.Path({folder!r})
values = dict(zip(arguments, arguments[1:]))
with (folder / "log").open("a") as log:
    log.write(json.dumps(arguments) + chr(10))
if arguments[0] == "train":
    index = arguments.index("--data-path")
    for name, path in zip(("train", "valid"), arguments[index + 1:]):
        (folder / name).write_text(pathlib.Path(path).read_text())
else:
    rows = list(csv.reader(open(values["--test-path"])))
    with open(values["--output"], "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*rows[0], "target"])
        writer.writerows([a, b, (2 * len(a) + len(b)) / {scale}] for a, b in rows[1:])
"""


@pytest.fixture
def fake_chemprop(tmp_path):
    """Function that writes the interpreter for a scale and returns its path."""

    def write(scale):
        path = tmp_path / "fake-python"
        path.write_text(
            FAKE_CHEMPROP.format(python=sys.executable, folder=str(tmp_path), scale=scale)
        )
        path.chmod(0o755)
        return str(path)

    return write


def metric_values(problem, solution):
    evaluation = evaluate(problem.task, problem.tests["test"], solution.answers, resamples=0)
    return {name: metric.value for name, metric in evaluation.metrics.items()}


def test_trivial_predicts_mean(tmp_path):
    write_solubility(tmp_path)
    problem = read_published("solubility", tmp_path)
    solution = trivial.solve(problem)
    assert [answer.value for answer in solution.answers.values()] == [3, 3]
    values = metric_values(problem, solution)
    assert values["mae"] == pytest.approx((1 + 2) / 2)
    assert values["rmse"] == pytest.approx(((1 + 4) / 2) ** 0.5)
    assert values["r2"] == pytest.approx(1 - 5 / (2 * 1.5**2))


def test_trivial_predicts_most_frequent_label(tmp_path):
    write_interactions(tmp_path)
    problem = read_published("chchminer", tmp_path)
    values = metric_values(problem, trivial.solve(problem))
    assert values["accuracy"] == pytest.approx(2 / 3)
    assert values["f1"] == pytest.approx(2 * 2 / (3 + 2))
    assert values["auroc"] == 0.5
    assert values["aupr"] == pytest.approx(2 / 3)


def test_label_answers_have_most_probable_label():
    task = get_task("ddi_type")
    rows = [Row(number, ("C", "O"), 4) for number in (1, 2)]
    answers = label_answers(task, rows, [4, 47, 49], np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]]))
    assert [(answer.label_id, answer.confidence) for answer in answers.values()] == [
        (47, 0.7),
        (4, 0.5),
    ]


@pytest.fixture
def small_fingerprints(monkeypatch):
    """The module `fingerprints` with few and small trees."""
    pytest.importorskip("lightgbm")
    from baselines import fingerprints

    settings = fingerprints.BoostingSettings(trees=20, leaves=(4,))
    monkeypatch.setattr(fingerprints, "_settings", lambda task, trees: settings)
    return fingerprints


def test_fingerprints_count_fragments_of_each_molecule():
    pytest.importorskip("lightgbm")
    from baselines.fingerprints import fingerprints
    from baselines.molecule_features import MORGAN_BITS as BITS

    table = fingerprints([("CCO", "C"), ("C", "CCO"), ("CCCCO", "C")]).toarray()
    assert table.shape == (3, 2 * BITS)
    first, second = table[:, :BITS], table[:, BITS:]
    assert (first[0] == second[1]).all()
    assert (second[0] == first[1]).all()
    # Ethanol has three atoms and three fragments of radius 1; radius 2 adds no new ones.
    assert second[0].sum() == 1
    assert first[0].sum() == 3 + 3
    assert first[2].max() > 1  # two middle carbons have the same fragment
    with pytest.raises(ValueError, match="RDKit cannot read 'C1'"):
        fingerprints([("C1", "C")])


def test_fingerprints_learn_numbers(tmp_path, small_fingerprints):
    rows = [
        ("C" * (1 + index % 12), "C" * (1 + index % 5) + "O", index % 12, "train")
        for index in range(300)
    ]
    rows += [("C" * length, "CCCCCCCO", length - 1, "test") for length in range(1, 13)]
    rows += [("C" * length, "CCCCCCCCO", length - 1, "valid") for length in range(1, 13)]
    write_dataset(tmp_path, "solv_solubility_logs", SOLUBILITY_COLUMNS, rows)
    problem = read_published("solubility", tmp_path)
    solution = small_fingerprints.solve(problem, seed=0, threads=1)
    values = metric_values(problem, solution)
    errors = [solution.answers[row.number].value - row.target for row in problem.test_rows]
    assert values["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert values["mae"] == pytest.approx(np.mean(np.abs(errors)))
    assert values["rmse"] < 2 < metric_values(problem, trivial.solve(problem))["rmse"]
    assert (solution.train_rows, solution.valid_rows, solution.selected) == (300, 12, "4 leaves")


def test_fingerprints_ignore_order_in_symmetric_task(tmp_path, small_fingerprints):
    labeled = [("C" * (1 + index) + "N" * (index % 2), index % 2) for index in range(10)]
    others = ["C" * length + "O" for length in range(1, 10)]
    rows = [(smiles, other, label, "train") for smiles, label in labeled for other in others]
    rows += [("CCF", "CO", 0, "valid"), ("CCCN", "CO", 1, "valid")]
    rows += [("CCCCCN", "CO", 1, "test"), ("CO", "CCCCCN", 1, "test")]
    rows += [("CF", "CO", 0, "test"), ("CO", "CF", 0, "test")]
    write_dataset(tmp_path, "ddi_chchminer", DDI_COLUMNS, rows)
    problem = read_published("chchminer", tmp_path)
    answers = list(small_fingerprints.solve(problem, seed=0, threads=1).answers.values())
    for answer, swapped in (answers[:2], answers[2:]):
        assert answer.label_id == swapped.label_id
        assert answer.confidence == pytest.approx(swapped.confidence, abs=1e-12)
    assert answers[0].label_id != answers[2].label_id


def test_chemprop_gets_no_scored_targets(tmp_path, fake_chemprop):
    write_solubility(tmp_path)
    problem = read_published("solubility", tmp_path)
    solution = chemprop_pairs.solve(problem, python=fake_chemprop(1), seed=3, threads=1, epochs=4)
    assert [answer.value for answer in solution.answers.values()] == [2 * 2 + 1, 2 * 2 + 1]
    with (tmp_path / "train").open() as file:
        assert list(csv.reader(file)) == [
            ["smiles_1", "smiles_2", "target"],
            ["C", "O", "1.0"],
            ["CC", "O", "2.0"],
            ["CCC", "O", "6.0"],
        ]
    train, predict = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert "CN" not in (tmp_path / "train").read_text() + (tmp_path / "valid").read_text()
    assert train[train.index("--epochs") + 1] == "4"
    assert train[train.index("--pytorch-seed") + 1] == "3"
    assert train[train.index("--task-type") + 1] == "regression"
    assert predict[0] == "predict"


def test_chemprop_averages_both_orders_in_symmetric_task(tmp_path, fake_chemprop):
    write_interactions(tmp_path)
    problem = read_published("chchminer", tmp_path)
    solution = chemprop_pairs.solve(problem, python=fake_chemprop(12), seed=0, threads=1, epochs=3)
    # The predictions for ("CN", "C") are 5 / 12 in one order and 4 / 12 in the other.
    first = next(iter(solution.answers.values()))
    assert (first.label_id, first.confidence) == (0, pytest.approx(1 - 4.5 / 12))
    assert (tmp_path / "train").read_text().splitlines()[1:3] == ["C,CC,1", "CC,C,1"]
    train = json.loads((tmp_path / "log").read_text().splitlines()[0])
    assert "--mpn-shared" in train


def test_chemprop_predictions_are_read_and_checked(tmp_path):
    pairs, predictions = tmp_path / "pairs.csv", tmp_path / "predictions.csv"
    pairs.write_text("smiles_1,smiles_2\nC,O\n")
    predictions.write_text('smiles_1,smiles_2,target,target_prob\nC,O,1,"0.2,0.7,0.1"\n')
    assert chemprop_pairs._read_predictions(pairs, predictions).tolist() == [[0.2, 0.7, 0.1]]
    predictions.write_text("smiles_1,smiles_2,target\nC,N,1\n")
    with pytest.raises(ChempropError, match="other rows than its input"):
        chemprop_pairs._read_predictions(pairs, predictions)


def test_chemprop_error_has_its_output(tmp_path):
    write_solubility(tmp_path)
    problem = read_published("solubility", tmp_path)
    options = {"seed": 0, "threads": 1, "epochs": 3}
    with pytest.raises(ChempropError, match="cannot be run: No such file"):
        chemprop_pairs.solve(problem, python=str(tmp_path / "none"), **options)
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no module >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(ChempropError, match="chemprop train exited with status 3: no module"):
        chemprop_pairs.solve(problem, python=str(broken), **options)


@pytest.mark.parametrize("name", ["solubility", "chchminer"])
def test_predictions_are_read_back(tmp_path, name):
    write_solubility(tmp_path)
    write_interactions(tmp_path)
    problem = read_published(name, tmp_path)
    task, data, path = problem.task, problem.tests["test"], tmp_path / "predictions.csv"
    answers = {
        row.number: task.parse_answer(task.write(row.target)).model_copy(
            update={"confidence": 0.75}
        )
        for row in data.rows
    }
    first = data.rows[0].number
    answers[first] = task.failed("unparsed", "nonsense", text="what?")
    write_predictions(path, data, answers)
    assert moltc.read_predictions(problem, path).answers == answers


def test_predictions_of_other_rows_are_refused(tmp_path):
    write_solubility(tmp_path)
    problem = read_published("solubility", tmp_path)
    task, data, path = problem.task, problem.tests["test"], tmp_path / "predictions.csv"
    answers = {row.number: task.parse_answer(task.write(row.target)) for row in data.rows}
    write_predictions(path, data, answers)
    text = path.read_text()
    path.write_text(text.replace("CN", "CCN"))
    with pytest.raises(PredictionsError, match="row 6: molecules or target differ"):
        moltc.read_predictions(problem, path)
    write_predictions(path, data, {7: answers[7]})
    with pytest.raises(PredictionsError, match="has no answer to row 6"):
        moltc.read_predictions(problem, path)


@pytest.fixture
def known_tasks(monkeypatch):
    """Let any folder be a checkpoint that knows the tasks of drug pairs."""
    config = SimpleNamespace(tasks=["ddi", "ddi_biosnap"])
    monkeypatch.setattr(moltc, "load_config", lambda folder: config)


def test_checkpoint_predicts_scored_rows(tmp_path, monkeypatch, known_tasks):
    write_interactions(tmp_path)
    problem = read_published("chchminer", tmp_path)
    opened = []

    def answer(task, pair):
        return task.parse_answer(task.write(int("CCC" in pair.molecules)))

    def open_engine(model, endpoint, name):
        opened.append((model, endpoint, name))
        return FakeEngine(answer)

    monkeypatch.setattr(moltc, "open_engine", open_engine)
    solution = moltc.predict(problem, tmp_path / "mini", "torch")
    assert opened == [(tmp_path / "mini", None, "torch")]
    labels = {number: answer.label_id for number, answer in solution.answers.items()}
    assert labels == {7: 0, 8: 0, 9: 1}


def test_checkpoint_averages_both_orders_in_symmetric_task(tmp_path, monkeypatch, known_tasks):
    write_interactions(tmp_path)
    problem = read_published("chchminer", tmp_path)
    submitted = []

    def answer(task, pair):
        submitted.append(pair.molecules)
        # Label 1 with probability 0.9 in one order, and with 0.3 in the other.
        is_sorted = pair.molecules == min(pair.molecules, pair.molecules[::-1])
        label, confidence = (1, 0.9) if is_sorted else (0, 0.7)
        return task.parse_answer(task.write(label)).model_copy(update={"confidence": confidence})

    monkeypatch.setattr(moltc, "open_engine", lambda *_: FakeEngine(answer))
    solution = moltc.predict(problem, tmp_path / "mini", "torch")
    assert len(submitted) == 2 * len(problem.test_rows)
    for result in solution.answers.values():
        assert (result.label_id, result.confidence) == (1, pytest.approx((0.9 + 0.3) / 2))


@pytest.mark.parametrize(
    "wrong", [None, {"fraction": 0.1, "seed": 0}, {"fraction": 0.2, "seed": 1}]
)
def test_checkpoint_trained_on_unseen_molecules_is_refused(tmp_path, wrong):
    expected = {"fraction": 0.2, "seed": 0}  # of molecules, as in cards of before scaffolds
    card = {"stages": [{"unseen": expected}, {"unseen": expected}]}
    (tmp_path / "card.json").write_text(json.dumps(card))
    moltc.check_unseen(tmp_path, 0.2, 0)
    with pytest.raises(UnseenError, match=r"fraction: 0\.2, seed: 0, by: scaffold"):
        moltc.check_unseen(tmp_path, 0.2, 0, "scaffold")
    card["stages"][0]["unseen"] = wrong
    for content in (card, {"stages": []}, {}):
        (tmp_path / "card.json").write_text(json.dumps(content))
        with pytest.raises(UnseenError, match="was not trained without these molecules"):
            moltc.check_unseen(tmp_path, 0.2, 0)
