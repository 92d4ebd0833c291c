"""The command: results are appended once, and the table is made of them."""

import json
import sys

import accuracy
import pytest
from accuracy_table import markdown, read_results, write_plot

from moltc_vllm.evaluate.predictions import write_predictions
from moltc_vllm.evaluate.scoring import evaluate
from tests.benchmarks.made_up import interactions, solubility


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    solubility(tmp_path)
    interactions(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["accuracy.py", *map(str, arguments)])
        accuracy.main()
        return capsys.readouterr()

    return call


@pytest.fixture
def run(tmp_path, command):
    def call(*arguments):
        common = ("run", "--folder", tmp_path, "--out", tmp_path / "out.jsonl", "--method")
        return command(*common, *arguments)

    return call


def test_results_are_those_of_evaluate(tmp_path, run):
    run("trivial", "--data", "solubility", "chchminer", "--bootstrap", "50", "--seed", "2")
    results = read_results(tmp_path / "out.jsonl")
    for name, task in (("solubility", "solubility"), ("chchminer", "ddi")):
        problem = accuracy.read_published(name, tmp_path)
        answers = accuracy.trivial.solve(problem).answers
        whole = evaluate(problem.task, problem.tests["test"], answers, resamples=50, seed=2)
        metrics = {**whole.metrics, "calibration_error": whole.calibration.error}
        defined = {key: one for key, one in metrics.items() if one.value is not None}
        found = {one["metric"]: one for one in results if one["data"] == name}
        assert set(found) == set(defined)
        for key, one in defined.items():
            line = found[key]
            assert (line["value"], line["low"], line["high"]) == (one.value, one.low, one.high)
            assert (line["task"], line["rows"], line["seed"]) == (task, one.rows, 2)
    lines = [one for one in results if one["data"] == "solubility"]
    assert {one["train_rows"] for one in lines} == {3}
    units = {one["metric"]: one["unit"] for one in lines}
    assert units["rmse"] == "log10 mol/L"
    assert units["r2"] is None


def test_what_is_there_is_not_computed_again(tmp_path, run, monkeypatch):
    out = tmp_path / "out.jsonl"
    run("trivial", "--data", "solubility")
    before = out.read_text()
    asked = []
    solve = accuracy.solve

    def counted(method, problem, arguments):
        asked.append(problem.name)
        return solve(method, problem, arguments)

    monkeypatch.setattr(accuracy, "solve", counted)
    said = run("trivial", "--data", "solubility", "chchminer")
    assert "solubility, trivial: there already" in said.err
    assert asked == ["chchminer"]
    assert out.read_text().startswith(before)
    run("trivial", "--data", "solubility", "--seed", "1")
    assert asked == ["chchminer", "solubility"]
    assert len(out.read_text().splitlines()) == len(set(out.read_text().splitlines()))


def test_settings_count_as_they_are_read_back(run):
    pytest.importorskip("lightgbm")
    options = ("fingerprints", "--trees", "3", "--bootstrap", "0", "--data", "solubility")
    run(*options)
    said = run(*options, "--also", "chchminer")  # of another task: nothing more to learn from
    assert "solubility, fingerprints: there already" in said.err
    said = run(*options, "--trees", "4")
    assert "solubility, fingerprints: done" in said.err


def test_a_model_is_called_after_its_folder(tmp_path, run):
    problem = accuracy.read_published("solubility", tmp_path)
    task, data = problem.task, problem.tests["test"]
    answers = {row.number: task.answer(task.write(row.target)) for row in data.rows}
    folder = tmp_path / "mini-3"
    folder.mkdir()
    write_predictions(folder / "predictions.csv", data, answers)
    predictions = ("moltc", "--data", "solubility", "--predictions", folder / "predictions.csv")
    table = run(*predictions, "--train-rows", "1234").out
    assert "| mini-3 | 0.000 (0.000 to 0.000) |" in table
    assert "| 1,234 |" in table
    assert str(tmp_path) not in (tmp_path / "out.jsonl").read_text()


def test_the_table(tmp_path, run, command):
    said = run("trivial", "--data", "solubility", "chchminer", "--bootstrap", "0")
    lines = said.out.splitlines()
    assert lines[0] == "| data | method | MAE | RMSE | R² | rows | learned from | CPU s |"
    assert lines[2] == "| solubility, log10 mol/L | trivial | 1.50 | 1.58 | -0.111 | 2 | 3 | 0 |"
    assert (
        lines[4] == "| data | method | accuracy | AUROC | AUPR | F1 | rows | learned from | CPU s |"
    )
    assert lines[6] == "| chchminer | trivial | 0.667 | 0.500 | 0.667 | 0.800 | 3 | 4 | 0 |"
    plot = tmp_path / "plot.png"
    again = command("table", tmp_path / "out.jsonl", "--plot", plot)
    assert again.out == said.out
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_runs_that_differ_have_their_own_rows(tmp_path, run):
    run("trivial", "--data", "solubility")
    results = read_results(tmp_path / "out.jsonl")
    other = [json.loads(json.dumps(one)) | {"seed": 4, "value": 9.0} for one in results]
    table = markdown([*results, *other])
    assert "| trivial |" in table
    assert "| trivial, seed 4 | 9.00" in table


def test_runs_that_are_called_alike_are_told_apart_by_their_settings(tmp_path, run):
    run("trivial", "--data", "solubility")
    results = read_results(tmp_path / "out.jsonl")

    def asked(engine):
        settings = {"model": "mini", "engine": engine}
        return [one | {"method": "moltc", "settings": settings} for one in results]

    lines = markdown([*results, *asked("torch"), *asked("vllm")]).splitlines()
    assert len(lines) == 2 + 3
    assert "| mini, model mini, engine torch, data " in lines[3]
    assert "| mini, model mini, engine vllm, data " in lines[4]
    assert "| mini |" in markdown([*results, *asked("torch")])


def test_rows_without_an_answer_are_told(tmp_path, run):
    run("trivial", "--data", "solubility")
    results = [one | {"answered": 1} for one in read_results(tmp_path / "out.jsonl")]
    assert "| 1 of 2 answered |" in markdown(results)


def test_a_panel_has_one_metric(tmp_path, run):
    run("trivial", "--data", "chchminer")
    results = read_results(tmp_path / "out.jsonl")
    # A model that never answered has no AUROC.
    failed = [one | {"seed": 1, "value": 0.0} for one in results if one["metric"] == "accuracy"]
    write_plot(tmp_path / "plot.png", [*failed, *results])
    assert (tmp_path / "plot.png").stat().st_size > 1000
    write_plot(tmp_path / "none.png", [])
    assert not (tmp_path / "none.png").exists()


def test_ways_to_set_molecules_aside_have_their_own_rows(tmp_path, run):
    run("trivial", "--data", "solubility")
    results = read_results(tmp_path / "out.jsonl")

    def unseen(fraction, split_seed):
        settings = {"fraction": fraction, "split_seed": split_seed}
        return [one | {"part": "both_unseen", "settings": settings} for one in results]

    table = markdown([*results, *unseen(0.1, 0), *unseen(0.2, 0), *unseen(0.2, 1)])
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == [
        "| solubility, log10 mol/L",
        "| solubility, both unseen (10% aside), log10 mol/L",
        "| solubility, both unseen (20% aside), log10 mol/L",
        "| solubility, both unseen (20% aside, split seed 1), log10 mol/L",
    ]


def test_a_checkpoint_or_predictions_are_needed(run, capsys):
    with pytest.raises(SystemExit):
        run("moltc", "--data", "solubility")
    assert "moltc needs either --model or --predictions" in capsys.readouterr().err
