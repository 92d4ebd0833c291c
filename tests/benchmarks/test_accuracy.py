"""`benchmarks/accuracy.py`: results are appended once, and the table is made from them."""

import json
import sys

import accuracy
import pytest
from accuracy_table import markdown, read_results, write_plot
from baselines import trivial

from moltc_vllm.evaluate.predictions import write_predictions
from moltc_vllm.evaluate.scoring import evaluate
from tests.benchmarks.small_datasets import write_interactions, write_solubility


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    write_solubility(tmp_path)
    write_interactions(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["accuracy.py", *map(str, arguments)])
        accuracy.main()
        return capsys.readouterr()

    return call


@pytest.fixture
def run(tmp_path, command):
    def call(*arguments):
        options = ("--folder", tmp_path, "--out", tmp_path / "out.jsonl")
        return command("run", *options, "--method", *arguments)

    return call


def test_results_equal_those_of_evaluate(tmp_path, run):
    run("trivial", "--data", "solubility", "chchminer", "--bootstrap", "50", "--seed", "2")
    results = read_results(tmp_path / "out.jsonl")
    for name, task in (("solubility", "solubility"), ("chchminer", "ddi_biosnap")):
        problem = accuracy.read_published(name, tmp_path)
        answers = trivial.solve(problem).answers
        evaluation = evaluate(problem.task, problem.tests["test"], answers, resamples=50, seed=2)
        metrics = {**evaluation.metrics, "calibration_error": evaluation.calibration.error}
        defined = {key: metric for key, metric in metrics.items() if metric.value is not None}
        lines = {line["metric"]: line for line in results if line["data"] == name}
        assert set(lines) == set(defined)
        for key, metric in defined.items():
            line = lines[key]
            assert (line["value"], line["low"], line["high"]) == (
                metric.value,
                metric.low,
                metric.high,
            )
            assert (line["task"], line["rows"], line["seed"]) == (task, metric.rows, 2)
    lines = [line for line in results if line["data"] == "solubility"]
    assert {line["train_rows"] for line in lines} == {3}
    units = {line["metric"]: line["unit"] for line in lines}
    assert units["rmse"] == "log10 mol/L"
    assert units["r2"] is None


def test_run_skips_existing_results(tmp_path, run, monkeypatch):
    out = tmp_path / "out.jsonl"
    run("trivial", "--data", "solubility")
    before = out.read_text()
    solved = []
    solve = accuracy.solve

    def recording_solve(method, problem, arguments):
        solved.append(problem.name)
        return solve(method, problem, arguments)

    monkeypatch.setattr(accuracy, "solve", recording_solve)
    output = run("trivial", "--data", "solubility", "chchminer")
    assert "solubility, trivial: skipped, the results exist" in output.err
    assert solved == ["chchminer"]
    assert out.read_text().startswith(before)
    run("trivial", "--data", "solubility", "--seed", "1")
    assert solved == ["chchminer", "solubility"]
    assert len(out.read_text().splitlines()) == len(set(out.read_text().splitlines()))


def test_run_recognizes_settings_after_reading_them_back(run):
    pytest.importorskip("lightgbm")
    options = ("fingerprints", "--trees", "3", "--bootstrap", "0", "--data", "solubility")
    run(*options)
    # A data set of another task adds no train rows, so that the run is the same.
    output = run(*options, "--also", "chchminer")
    assert "solubility, fingerprints: skipped, the results exist" in output.err
    output = run(*options, "--trees", "4")
    assert "solubility, fingerprints: done" in output.err


def test_model_gets_name_of_its_folder(tmp_path, run):
    problem = accuracy.read_published("solubility", tmp_path)
    task, data = problem.task, problem.tests["test"]
    answers = {row.number: task.parse_answer(task.write(row.target)) for row in data.rows}
    folder = tmp_path / "mini-3"
    folder.mkdir()
    write_predictions(folder / "predictions.csv", data, answers)
    options = ("moltc", "--data", "solubility", "--predictions", folder / "predictions.csv")
    table = run(*options, "--train-rows", "1234").out
    assert "| mini-3 | 0.000 (0.000 to 0.000) |" in table
    assert "| 1,234 |" in table
    assert str(tmp_path) not in (tmp_path / "out.jsonl").read_text()


def test_table_and_plot(tmp_path, run, command):
    output = run("trivial", "--data", "solubility", "chchminer", "--bootstrap", "0")
    lines = output.out.splitlines()
    assert lines[0] == "| data | method | MAE | RMSE | R² | rows | train rows | CPU s |"
    assert lines[2] == "| solubility, log10 mol/L | trivial | 1.50 | 1.58 | -0.111 | 2 | 3 | 0 |"
    assert (
        lines[4] == "| data | method | accuracy | AUROC | AUPR | F1 | rows | train rows | CPU s |"
    )
    assert lines[6] == "| chchminer | trivial | 0.667 | 0.500 | 0.667 | 0.800 | 3 | 4 | 0 |"
    plot = tmp_path / "plot.png"
    again = command("table", tmp_path / "out.jsonl", "--plot", plot)
    assert again.out == output.out
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_table_has_a_line_per_run(tmp_path, run):
    run("trivial", "--data", "solubility")
    results = read_results(tmp_path / "out.jsonl")
    other_run = [json.loads(json.dumps(line)) | {"seed": 4, "value": 9.0} for line in results]
    table = markdown([*results, *other_run])
    assert "| trivial |" in table
    assert "| trivial, seed 4 | 9.00" in table


def test_table_shows_settings_of_runs_with_equal_labels(tmp_path, run):
    run("trivial", "--data", "solubility")
    results = read_results(tmp_path / "out.jsonl")

    def results_of(engine):
        settings = {"model": "mini", "engine": engine}
        return [line | {"method": "moltc", "settings": settings} for line in results]

    lines = markdown([*results, *results_of("torch"), *results_of("vllm")]).splitlines()
    assert len(lines) == 2 + 3
    assert "| mini, model mini, engine torch, data " in lines[3]
    assert "| mini, model mini, engine vllm, data " in lines[4]
    assert "| mini |" in markdown([*results, *results_of("torch")])


def test_table_shows_number_of_answered_rows(tmp_path, run):
    run("trivial", "--data", "solubility")
    results = [line | {"answered": 1} for line in read_results(tmp_path / "out.jsonl")]
    assert "| 1 of 2 answered |" in markdown(results)


def test_plot_skips_runs_without_its_metric(tmp_path, run):
    run("trivial", "--data", "chchminer")
    results = read_results(tmp_path / "out.jsonl")
    # A model that never answered has no AUROC, which is the metric of the panel.
    failed = [line | {"seed": 1, "value": 0.0} for line in results if line["metric"] == "accuracy"]
    write_plot(tmp_path / "plot.png", [*failed, *results])
    assert (tmp_path / "plot.png").stat().st_size > 1000
    write_plot(tmp_path / "none.png", [])
    assert not (tmp_path / "none.png").exists()


def test_table_distinguishes_held_out_fractions_and_seeds(tmp_path, run):
    run("trivial", "--data", "solubility")
    results = read_results(tmp_path / "out.jsonl")

    def unseen(fraction, split_seed):
        settings = {"fraction": fraction, "split_seed": split_seed}
        return [line | {"part": "both_unseen", "settings": settings} for line in results]

    table = markdown([*results, *unseen(0.1, 0), *unseen(0.2, 0), *unseen(0.2, 1)])
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == [
        "| solubility, log10 mol/L",
        "| solubility, both unseen (10% held out), log10 mol/L",
        "| solubility, both unseen (20% held out), log10 mol/L",
        "| solubility, both unseen (20% held out, split seed 1), log10 mol/L",
    ]


def test_moltc_needs_model_or_predictions(run, capsys):
    with pytest.raises(SystemExit):
        run("moltc", "--data", "solubility")
    assert "moltc needs either --model or --predictions" in capsys.readouterr().err


def test_all_continues_and_is_tabulated(tmp_path, run, command):
    options = ("--all", "--split", "published", "--data", "solubility", "chchminer")
    run("trivial", *options, "--bootstrap", "20")
    output = run("trivial", "rates", *options, "--bootstrap", "20")
    assert output.err.splitlines() == [
        "solubility, trivial: skipped, the results exist",
        "chchminer, trivial: skipped, the results exist",
        "solubility, rates: done",
        "chchminer, rates: done",
    ]
    assert command("table", "--all", tmp_path / "out.jsonl").out == output.out
    header, _, solubility, _ = output.out.splitlines()[2:]
    assert header == "| data set | pairs | metric | mean or most frequent label | rates |"
    assert solubility.startswith("| solubility | 2 | RMSE, log10 mol/L | **1.58** (")
