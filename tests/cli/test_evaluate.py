"""`moltc evaluate`, with the torch engine and with engines that need no model."""

import csv
import gzip
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from moltc_vllm.cli import app
from moltc_vllm.cli import evaluate as command
from moltc_vllm.cli.progress import ProgressBars
from moltc_vllm.engines.http import ServerError
from moltc_vllm.tasks import get_task
from tests.evaluate.fakes import FakeEngine, make_answer

runner = CliRunner()
DEFAULTS = {"standardize": None, "coverage": 0.8}
HEAD = "solute_smiles,solvent_smiles,dg_solv_kcal_mol,split\n"
ROWS = ["CCO,O,-5.0,test", "CC,O,,test", "C1CC,O,1.0,test", "C,CCO,2.0,train", "N,O,-4.3,test"]


def run(*arguments):
    return runner.invoke(app, ["evaluate", *(str(argument) for argument in arguments)])


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text(HEAD + "\n".join(ROWS) + "\n")
    return path


@pytest.fixture
def engine(monkeypatch):
    """Function that makes the command open a given engine; it records the options."""

    def use(fake):
        def open_engine(*_, **options):
            use.options.append(options)
            return fake

        monkeypatch.setattr(command, "open_engine", open_engine)

    use.options = []
    return use


def off_by_one(task, pair):
    targets = {1: -5.0, 4: 2.0, 5: -4.3}
    if pair.row not in targets:
        return task.failed("bad_molecule", f"molecule {pair.molecules[0]!r}")
    return make_answer(task.name, targets[pair.row] + 1, 0.5)


def failing_engine(after, error):
    """Make an engine that raises an error after some answers."""

    class FailingEngine(FakeEngine):
        def submit(self, task, pairs, question=None):
            for count, pair in enumerate(pairs):
                if count == after:
                    raise error
                yield pair, self.answer(get_task(task), pair)

    return FailingEngine(off_by_one)


def test_evaluate_writes_metrics_predictions_and_plot(tmp_path, tiny):
    path = tmp_path / "six.csv.gz"
    rows = [
        "CCO,O,-5.0,a",
        "C,O,2.0,a",
        "N,O,-4.3,a",
        "c1ccccc1,CCO,-4,a",
        "C1CC,O,0,a",
        "CO,O,-5,a",
    ]
    path.write_bytes(gzip.compress((HEAD + "\n".join(rows)).encode()))
    out = tmp_path / "out"
    arguments = ("--model", tiny, "--engine", "torch", "--task", "solvation", "--data", path)
    result = run(*arguments, "--split", "a", "--json", "--out", out)
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout.splitlines()[-1])
    assert content == json.loads((out / "metrics.json").read_text())
    assert content["data"] == {
        "name": "six.csv.gz",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert (content["task"], content["unit"], content["split"]) == ("solvation", "kcal/mol", "a")
    assert (content["engine"], content["beams"], content["partial"]) == ("torch", 1, False)
    assert content["model"] == str(tiny)
    counts = content["counts"]
    assert (counts["asked"], counts["answered"], counts["bad_molecules"]) == (6, 5, 1)
    assert set(content["metrics"]) >= {"mae", "rmse", "r2", "interval_hit_rate"}
    with (out / "predictions.csv").open() as file:
        predictions = list(csv.DictReader(file))
    assert [row["status"] for row in predictions] == ["ok"] * 4 + ["bad_molecule", "ok"]
    errors = [
        abs(float(row["answer"]) - float(row["target"])) for row in predictions if row["answer"]
    ]
    mae = content["metrics"]["mae"]
    assert mae["value"] == pytest.approx(sum(errors) / 5)
    assert mae["low"] < mae["value"] < mae["high"]
    assert (out / "evaluation.png").stat().st_size > 10_000
    assert "6 of 6 rows" in result.stderr
    assert "1 failed" in result.stderr


@pytest.mark.parametrize(
    ("tasks", "asked"), [(["ddi"], "ddi"), (["ddi", "ddi_biosnap"], "ddi_biosnap")]
)
def test_evaluate_asks_older_checkpoints_the_fallback(tiny, tmp_path, tasks, asked):
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(tiny, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "tasks": tasks}))
    path = tmp_path / "pairs.csv"
    path.write_text("smiles_1,smiles_2,label\nCCO,O,1\nc1ccccc1,CCO,0\nN,O,1\n")
    arguments = ("--model", model, "--engine", "torch", "--task", "ddi_biosnap", "--data", path)
    result = run(*arguments, "--json", "--out", out)
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout.splitlines()[-1])
    assert (content["task"], content["asked_task"]) == ("ddi_biosnap", asked)
    assert content["counts"]["answered"] == 3
    assert set(content["metrics"]) >= {"accuracy", "auroc"}
    note = "does not have the task ddi_biosnap; it answers ddi instead"
    assert (note in result.stderr) == (asked == "ddi")
    with (out / "predictions.csv").open() as file:
        texts = {row["text"] for row in csv.DictReader(file)}
    assert texts <= {label.text for label in get_task(asked).kind.labels}


def test_evaluate_prints_tables(engine, data):
    engine(FakeEngine(off_by_one))
    result = run("--model", "m", "--task", "solvation", "--data", data)
    assert result.exit_code == 0, result.output
    assert "Solvation Gibbs free energy: m on data.csv, 4 rows" in result.stdout
    assert (
        "5 rows, 4 measured, 4 evaluated: 3 answered, 0 unparsed, 1 bad molecules" in result.stdout
    )
    (line,) = [line for line in result.stdout.splitlines() if "mae, kcal/mol" in line]
    assert re.split(r"\s{2,}", line.strip()) == ["mae, kcal/mol", "1", "1 to 1", "3", "left out"]
    assert "unanswered" in result.stdout
    assert "calibration_error" in result.stdout
    assert "…" not in result.stdout
    assert engine.options == [{"beams": 1, "pad_query": False, **DEFAULTS}]


def test_evaluate_compares_lists_with_the_best_constant_list(engine, tmp_path):
    (tmp_path / "names.csv").write_text("side_effect_id,name\n0,nausea\n1,Pain\n2,edema\n")
    (tmp_path / "names.csv").rename(tmp_path / "pairs_side_effects.csv")
    path = tmp_path / "pairs.csv"
    path.write_text("smiles_1,smiles_2,side_effect_ids\nCCO,O,0 1\nCO,O,0\nCN,O,0 2\nN,O,1\n")
    answers = {1: ("nausea", "Pain"), 2: ("edema",), 3: ("nausea",)}

    def answer(task, pair):
        if pair.row not in answers:
            return task.parse_answer("The side effects of these two drugs are nauseaitis.")
        return make_answer(task.name, answers[pair.row])

    engine(FakeEngine(answer))
    arguments = ("--model", "m", "--task", "ddi_side_effects", "--data", path)
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    assert "warning: ddi_side_effects is experimental: no shipped model" in result.stderr
    content = json.loads(result.stdout)
    assert content["counts"]["unparsed"] == 1
    metrics = {name: metric["value"] for name, metric in content["metrics"].items()}
    assert metrics["f1"] == pytest.approx(2 * 3 / (6 + 4))
    assert metrics["constant_f1"] == pytest.approx(2 * 5 / (6 + 8))  # nausea and Pain
    assert "constant_f1" in run(*arguments).stdout


def test_result_has_all_options(engine, data):
    engine(FakeEngine(off_by_one))
    arguments = ("--endpoint", "http://x", "--task", "solvation", "--data", data, "--json")
    result = run(*arguments, "--beams", 5, "--limit", 2, "--seed", 3, "--bootstrap", 50)
    content = json.loads(result.stdout)
    assert engine.options == [{"beams": 5, "pad_query": False, **DEFAULTS}]
    assert (content["beams"], content["limit"], content["seed"]) == (5, 2, 3)
    assert (content["model"], content["engine"], content["split"]) == ("http://x", "http", None)
    assert content["bootstrap"] == {"resamples": 50, "level": 0.95}
    assert (content["counts"]["measured"], content["counts"]["asked"]) == (4, 2)


def test_seed_determines_sample_and_bootstrap(engine, data, tmp_path):
    engine(FakeEngine(lambda task, pair: make_answer(task.name, pair.row % 7)))
    data.write_text(HEAD + "".join(f"{'C' * n},O,{n},test\n" for n in range(1, 40)))

    def drawn(seed, *limit):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        arguments = ("--model", "m", "--task", "solvation", "--data", data, "--out", out)
        assert run(*arguments, "--seed", seed, *limit).exit_code == 0
        mae = json.loads((out / "metrics.json").read_text())["metrics"]["mae"]
        with (out / "predictions.csv").open() as file:
            return [row["row"] for row in csv.DictReader(file)], mae["value"], mae["low"]

    rows, value, low = drawn(0)
    assert drawn(0) == (rows, value, low)
    assert drawn(1)[:2] == (rows, value)
    assert drawn(1)[2] != low
    assert drawn(0, "--limit", 5) == drawn(0, "--limit", 5)
    assert drawn(0, "--limit", 5)[0] != drawn(1, "--limit", 5)[0]


def test_interrupt_is_reported_as_partial_result(engine, data, tmp_path):
    engine(failing_engine(2, KeyboardInterrupt()))
    out = tmp_path / "out"
    result = run("--model", "m", "--task", "solvation", "--data", data, "--json", "--out", out)
    assert result.exit_code == 130
    content = json.loads(result.stdout)
    assert (content["partial"], content["stopped"]) == (True, "interrupted")
    assert content["counts"]["asked"] == 4
    assert content["counts"]["not_reached"] == 2
    assert content["metrics"]["mae"]["value"] == pytest.approx(1)
    with (out / "predictions.csv").open() as file:
        statuses = [row["status"] for row in csv.DictReader(file)]
    assert statuses == ["ok", "not_measured", "bad_molecule", "not_reached", "not_reached"]


def test_interrupt_is_reported_in_tables(engine, data):
    engine(failing_engine(2, KeyboardInterrupt()))
    result = run("--model", "m", "--task", "solvation", "--data", data)
    assert result.exit_code == 130
    assert "Partial (interrupted): 2 of 4 rows were not reached" in result.stdout


def test_interrupt_before_first_answer_gives_no_metrics(engine, data):
    engine(failing_engine(0, KeyboardInterrupt()))
    result = run("--model", "m", "--task", "solvation", "--data", data, "--json")
    assert result.exit_code == 130
    assert json.loads(result.stdout)["metrics"] == {}


def test_engine_error_after_interrupt_counts_as_interrupt(engine, data):
    error = RuntimeError("the engine is dead")
    error.__context__ = KeyboardInterrupt()
    engine(failing_engine(1, error))
    result = run("--model", "m", "--task", "solvation", "--data", data, "--json")
    assert result.exit_code == 130
    assert json.loads(result.stdout)["stopped"] == "interrupted"


def test_engine_error_keeps_earlier_answers(engine, data):
    engine(failing_engine(3, ServerError("out of\nmemory")))
    result = run("--model", "m", "--task", "solvation", "--data", data, "--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert content["stopped"] == "ServerError: out of memory"
    assert content["counts"]["not_reached"] == 1


def test_engine_error_before_first_answer_is_a_message(engine, data):
    engine(failing_engine(0, ServerError("no such model")))
    result = run("--model", "m", "--task", "solvation", "--data", data, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1] == "moltc: no such model"


def test_unexpected_error_before_first_answer_is_raised(engine, data):
    engine(failing_engine(0, ZeroDivisionError()))
    result = run("--model", "m", "--task", "solvation", "--data", data, "--json")
    assert isinstance(result.exception, ZeroDivisionError)


SLOW = """
import atexit, signal, subprocess, sys, time
from moltc_vllm.cli import app, evaluate
from moltc_vllm.tasks import get_task

class Slow:
    def submit(self, task, pairs, question=None):
        print("noise")
        subprocess.run([sys.executable, "-c", "print('noise of another process')"])
        atexit.register(print, "noise at the end")
        for pair in pairs:
            if pair.row > 2:
                print("waiting", file=sys.stderr, flush=True)
                time.sleep(60)
            yield pair, get_task(task).failed("error", "x")

evaluate.open_engine = lambda *_, **__: Slow()
# A shell that runs the tests in the background makes them ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
app()
"""


def test_sigint_leaves_result_as_only_output_of_noisy_engine(data):
    arguments = ["evaluate", "--model", "m", "--task", "solvation", "--data", str(data), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    before = []
    while before[-1:] != ["waiting\n"]:
        before.append(process.stderr.readline())
        assert before[-1], before
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    noise = {"noise\n", "noise of another process\n", "noise at the end\n"}
    assert noise <= {*before, *stderr.splitlines(keepends=True)}
    (line,) = stdout.splitlines()
    assert json.loads(line)["counts"]["not_reached"] == 3


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--task", "solvatoin"], "Did you mean 'solvation'"),
        (["--task", "ask"], "task 'ask' has no measured answers"),
        (["--task", "ddi"], "no column 'smiles_1'; there are solute_smiles, solvent_smiles, dg_"),
        (["--task", "solvation", "--split", "tests"], "no split 'tests'; there are test, train"),
        (["--task", "solvation", "--model", "nowhere"], "not a checkpoint folder"),
        (["--task", "solvation", "--data", "gone.csv"], "gone.csv cannot be read: No such file"),
    ],
)
def test_invalid_input_is_reported_in_one_line(data, monkeypatch, options, reason):
    monkeypatch.chdir(data.parent)
    result = run("--data", data, *options)
    assert result.exit_code == 2
    assert reason in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert list(data.parent.iterdir()) == [data]


def test_data_without_targets_is_an_error(engine, data):
    engine(FakeEngine(off_by_one))
    data.write_text(HEAD + "CCO,O,,test\n")
    result = run("--model", "m", "--task", "solvation", "--data", data)
    assert result.exit_code == 2
    assert "data.csv has no row to evaluate: none of its 1 rows has a measured target" in (
        result.output
    )


def test_evaluate_does_not_overwrite_results(engine, data, tmp_path):
    engine(FakeEngine(off_by_one))
    arguments = ("--model", "m", "--task", "solvation", "--data", data)
    out = tmp_path / "out"
    assert run(*arguments, "--out", out).exit_code == 0
    before = (out / "metrics.json").read_bytes()
    again = run(*arguments, "--out", out)
    assert again.exit_code == 2
    assert "already has a metrics.json; choose another folder" in again.output
    assert (out / "metrics.json").read_bytes() == before


def test_out_that_is_a_file_is_an_error(engine, data):
    engine(FakeEngine(off_by_one))
    result = run("--model", "m", "--task", "solvation", "--data", data, "--out", data)
    assert result.exit_code == 2
    assert "data.csv: File exists" in result.output


def test_evaluate_without_matplotlib_writes_numbers(engine, data, tmp_path, monkeypatch):
    engine(FakeEngine(off_by_one))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out = tmp_path / "out"
    result = run("--model", "m", "--task", "solvation", "--data", data, "--out", out)
    assert result.exit_code == 0
    assert "moltc: no plot: " in result.stderr
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "predictions.csv"]


def test_progress_without_terminal_is_plain_lines(engine, data, monkeypatch):
    engine(FakeEngine(off_by_one))
    monkeypatch.setattr(ProgressBars, "every_s", 0.0)
    result = run("--model", "m", "--task", "solvation", "--data", data, "--json")
    lines = result.stderr.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"{done} of 4 rows" for done in (1, 2, 3, 4)]
    assert all(" rows/s" in line and "\x1b" not in line for line in lines)
    assert " s left" in lines[0]
    assert lines[-1].endswith("1 failed")


def test_progress_on_terminal_is_a_bar(engine, data, monkeypatch):
    engine(FakeEngine(off_by_one))
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = run("--model", "m", "--task", "solvation", "--data", data, "--json")
    assert result.exit_code == 0
    assert "\x1b[" in result.stderr
    assert "4/4" in result.stderr
    assert "1 failed" in result.stderr
    json.loads(result.stdout)
