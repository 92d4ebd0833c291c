"""Every method's answers, and what it may see."""

import csv
import json
import sys

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
from tests.benchmarks.made_up import DRUGS, SOLUTION, interactions, solubility, write
from tests.evaluate.fakes import FakeEngine

# Answers with the sum of the lengths of both SMILES, the first one counted twice.
FAKE_CHEMPROP = """#!{python}
import csv, json, pathlib, sys
arguments = sys.argv[3:]
folder = pathlib.Path({folder!r})
values = dict(zip(arguments, arguments[1:]))
with (folder / "log").open("a") as log:
    log.write(json.dumps(arguments) + chr(10))
if arguments[0] == "train":
    place = arguments.index("--data-path")
    for name, path in zip(("train", "valid"), arguments[place + 1:]):
        (folder / name).write_text(pathlib.Path(path).read_text())
else:
    rows = list(csv.reader(open(values["--test-path"])))
    with open(values["--output"], "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*rows[0], "target"])
        writer.writerows([a, b, (2 * len(a) + len(b)) / {scale}] for a, b in rows[1:])
"""


@pytest.fixture
def fake(tmp_path):
    def make(scale):
        path = tmp_path / "fake-python"
        path.write_text(
            FAKE_CHEMPROP.format(python=sys.executable, folder=str(tmp_path), scale=scale)
        )
        path.chmod(0o755)
        return str(path)

    return make


def metrics(problem, solved):
    evaluation = evaluate(problem.task, problem.tests["test"], solved.answers, resamples=0)
    return {name: metric.value for name, metric in evaluation.metrics.items()}


def test_the_mean_by_hand(tmp_path):
    solubility(tmp_path)
    problem = read_published("solubility", tmp_path)
    solved = trivial.solve(problem)
    assert [answer.value for answer in solved.answers.values()] == [3, 3]
    found = metrics(problem, solved)
    assert found["mae"] == pytest.approx((1 + 2) / 2)
    assert found["rmse"] == pytest.approx(((1 + 4) / 2) ** 0.5)
    assert found["r2"] == pytest.approx(1 - 5 / (2 * 1.5**2))


def test_the_majority_by_hand(tmp_path):
    interactions(tmp_path)
    problem = read_published("chchminer", tmp_path)
    found = metrics(problem, trivial.solve(problem))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(2 * 2 / (3 + 2))
    assert found["auroc"] == 0.5
    assert found["aupr"] == pytest.approx(2 / 3)


def test_the_most_probable_label_is_the_answer():
    task = get_task("ddi_type")
    rows = [Row(number, ("C", "O"), 4) for number in (1, 2)]
    answers = label_answers(task, rows, [4, 47, 49], np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]]))
    assert [(one.label_id, one.confidence) for one in answers.values()] == [(47, 0.7), (4, 0.5)]


def lightgbm_with(monkeypatch, **settings):
    pytest.importorskip("lightgbm")
    from baselines import fingerprints

    small = fingerprints.Settings(trees=20, leaves=(4,), **settings)
    monkeypatch.setattr(fingerprints, "Settings", lambda: small)
    return fingerprints


def test_a_fingerprint_counts_fragments_of_each_molecule():
    pytest.importorskip("lightgbm")
    from baselines.fingerprints import BITS, fingerprints

    table = fingerprints([("CCO", "C"), ("C", "CCO"), ("CCCCO", "C")]).toarray()
    assert table.shape == (3, 2 * BITS)
    first, second = table[:, :BITS], table[:, BITS:]
    assert (first[0] == second[1]).all()
    assert (second[0] == first[1]).all()
    # Three atoms, and each with its neighbours; two bonds away there is nothing new.
    assert second[0].sum() == 1
    assert first[0].sum() == 3 + 3
    assert first[2].max() > 1  # two middle carbons are alike
    with pytest.raises(ValueError, match="RDKit cannot read 'C1'"):
        fingerprints([("C1", "C")])


def test_fingerprints_learn_numbers(tmp_path, monkeypatch):
    module = lightgbm_with(monkeypatch)
    rows = [
        ("C" * (1 + place % 12), "C" * (1 + place % 5) + "O", place % 12, "train")
        for place in range(300)
    ]
    rows += [("C" * length, "CCCCCCCO", length - 1, "test") for length in range(1, 13)]
    rows += [("C" * length, "CCCCCCCCO", length - 1, "valid") for length in range(1, 13)]
    write(tmp_path, "solv_solubility_logs", SOLUTION, rows)
    problem = read_published("solubility", tmp_path)
    solved = module.solve(problem, seed=0, threads=1)
    found = metrics(problem, solved)
    errors = [solved.answers[one.number].value - one.target for one in problem.asked]
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert found["mae"] == pytest.approx(np.mean(np.abs(errors)))
    assert found["rmse"] < 2 < metrics(problem, trivial.solve(problem))["rmse"]
    assert (solved.train_rows, solved.valid_rows, solved.chosen) == (300, 12, "4 leaves")


def test_fingerprints_do_not_mind_the_order_of_two_drugs(tmp_path, monkeypatch):
    module = lightgbm_with(monkeypatch)
    amines = [("C" * (1 + place) + "N" * (place % 2), place % 2) for place in range(10)]
    others = ["C" * length + "O" for length in range(1, 10)]
    rows = [(one, other, label, "train") for one, label in amines for other in others]
    rows += [("CCF", "CO", 0, "valid"), ("CCCN", "CO", 1, "valid")]
    rows += [("CCCCCN", "CO", 1, "test"), ("CO", "CCCCCN", 1, "test")]
    rows += [("CF", "CO", 0, "test"), ("CO", "CF", 0, "test")]
    write(tmp_path, "ddi_chchminer", DRUGS, rows)
    problem = read_published("chchminer", tmp_path)
    answers = list(module.solve(problem, seed=0, threads=1).answers.values())
    for one, other in (answers[:2], answers[2:]):
        assert one.label_id == other.label_id
        assert one.confidence == pytest.approx(other.confidence, abs=1e-12)
    assert answers[0].label_id != answers[2].label_id


def test_chemprop_is_told_no_answers(tmp_path, fake):
    solubility(tmp_path)
    problem = read_published("solubility", tmp_path)
    solved = chemprop_pairs.solve(problem, python=fake(1), seed=3, threads=1, epochs=4)
    assert [answer.value for answer in solved.answers.values()] == [2 * 2 + 1, 2 * 2 + 1]
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


def test_chemprop_answers_both_orders_of_two_drugs(tmp_path, fake):
    interactions(tmp_path)
    problem = read_published("chchminer", tmp_path)
    solved = chemprop_pairs.solve(problem, python=fake(12), seed=0, threads=1, epochs=3)
    # ("CN", "C") has 5 / 12 one way and 4 / 12 the other; that is a no.
    first = next(iter(solved.answers.values()))
    assert (first.label_id, first.confidence) == (0, pytest.approx(1 - 4.5 / 12))
    assert (tmp_path / "train").read_text().splitlines()[1:3] == ["C,CC,1", "CC,C,1"]
    train = json.loads((tmp_path / "log").read_text().splitlines()[0])
    assert "--mpn-shared" in train


def test_probabilities_of_many_classes_are_in_one_cell(tmp_path):
    asked, given = tmp_path / "asked.csv", tmp_path / "given.csv"
    asked.write_text("smiles_1,smiles_2\nC,O\n")
    given.write_text('smiles_1,smiles_2,target,target_prob\nC,O,1,"0.2,0.7,0.1"\n')
    assert chemprop_pairs._read(asked, given).tolist() == [[0.2, 0.7, 0.1]]
    given.write_text("smiles_1,smiles_2,target\nC,N,1\n")
    with pytest.raises(ChempropError, match="other rows than it was asked about"):
        chemprop_pairs._read(asked, given)


def test_what_chemprop_says_is_passed_on(tmp_path):
    solubility(tmp_path)
    problem = read_published("solubility", tmp_path)
    options = {"seed": 0, "threads": 1, "epochs": 3}
    with pytest.raises(ChempropError, match="cannot be run: No such file"):
        chemprop_pairs.solve(problem, python=str(tmp_path / "none"), **options)
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no module >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(ChempropError, match="chemprop train ended with 3: no module"):
        chemprop_pairs.solve(problem, python=str(broken), **options)


@pytest.mark.parametrize("name", ["solubility", "chchminer"])
def test_predictions_are_read_back(tmp_path, name):
    solubility(tmp_path)
    interactions(tmp_path)
    problem = read_published(name, tmp_path)
    task, data, path = problem.task, problem.tests["test"], tmp_path / "predictions.csv"
    given = {
        one.number: task.answer(task.write(one.target)).model_copy(update={"confidence": 0.75})
        for one in data.rows
    }
    first = data.rows[0].number
    given[first] = task.failed("unparsed", "nonsense", text="what?")
    write_predictions(path, data, given)
    assert moltc.read_predictions(problem, path).answers == given


def test_predictions_of_other_rows_are_refused(tmp_path):
    solubility(tmp_path)
    problem = read_published("solubility", tmp_path)
    task, data, path = problem.task, problem.tests["test"], tmp_path / "predictions.csv"
    given = {one.number: task.answer(task.write(one.target)) for one in data.rows}
    write_predictions(path, data, given)
    whole = path.read_text()
    path.write_text(whole.replace("CN", "CCN"))
    with pytest.raises(PredictionsError, match="row 6: other molecules or target"):
        moltc.read_predictions(problem, path)
    write_predictions(path, data, {7: given[7]})
    with pytest.raises(PredictionsError, match="has no answer to row 6"):
        moltc.read_predictions(problem, path)


def test_a_checkpoint_is_asked_about_the_scored_rows(tmp_path, monkeypatch):
    interactions(tmp_path)
    problem = read_published("chchminer", tmp_path)
    opened = []

    def open_engine(model, endpoint, name):
        opened.append((model, endpoint, name))
        return FakeEngine(lambda task, pair: task.answer(task.write(int("CCC" in pair.molecules))))

    monkeypatch.setattr(moltc, "open_engine", open_engine)
    solved = moltc.ask_checkpoint(problem, tmp_path / "mini", "torch")
    assert opened == [(tmp_path / "mini", None, "torch")]
    assert {number: one.label_id for number, one in solved.answers.items()} == {7: 0, 8: 0, 9: 1}


def test_two_drugs_are_asked_about_in_both_orders(tmp_path, monkeypatch):
    interactions(tmp_path)
    problem = read_published("chchminer", tmp_path)
    asked = []

    def answer(task, pair):
        asked.append(pair.molecules)
        # Sure of one order, and nearly sure of the contrary in the other one.
        first = pair.molecules == min(pair.molecules, pair.molecules[::-1])
        label, chance = (1, 0.9) if first else (0, 0.7)
        return task.answer(task.write(label)).model_copy(update={"confidence": chance})

    monkeypatch.setattr(moltc, "open_engine", lambda *_: FakeEngine(answer))
    solved = moltc.ask_checkpoint(problem, tmp_path / "mini", "torch")
    assert len(asked) == 2 * len(problem.asked)
    for one in solved.answers.values():
        assert (one.label_id, one.confidence) == (1, pytest.approx((0.9 + 0.3) / 2))


@pytest.mark.parametrize(
    "wrong", [None, {"fraction": 0.1, "seed": 0}, {"fraction": 0.2, "seed": 1}]
)
def test_a_checkpoint_that_knows_the_molecules_is_refused(tmp_path, wrong):
    wanted = {"fraction": 0.2, "seed": 0}
    card = {"stages": [{"unseen": wanted}, {"unseen": wanted}]}
    (tmp_path / "card.json").write_text(json.dumps(card))
    moltc.check_unseen(tmp_path, 0.2, 0)
    card["stages"][0]["unseen"] = wrong
    for content in (card, {"stages": []}, {}):
        (tmp_path / "card.json").write_text(json.dumps(content))
        with pytest.raises(UnseenError, match="was not trained without these molecules"):
            moltc.check_unseen(tmp_path, 0.2, 0)
