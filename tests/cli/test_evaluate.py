"""The command `moltc evaluate`, with plain torch and with engines that need no model."""

import csv
import gzip
import hashlib
import json
import re
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
from tests.evaluate.fakes import FakeEngine, said

runner = CliRunner()
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
    """Let the command open this engine."""

    def use(one):
        monkeypatch.setattr(
            command, "open_engine", lambda *_, **options: opened.append(options) or one
        )

    opened = []
    use.options = opened
    return use


def off_by_one(task, pair):
    targets = {1: -5.0, 4: 2.0, 5: -4.3}
    if pair.row not in targets:
        return task.failed("bad_molecule", f"molecule {pair.molecules[0]!r}")
    return said(task.name, targets[pair.row] + 1, 0.5)


def stopping(after, error):
    """An engine that ends like this after some answers."""

    class Stopping(FakeEngine):
        def submit(self, task, pairs, question=None):
            for count, pair in enumerate(pairs):
                if count == after:
                    raise error
                yield pair, self.answer(get_task(task), pair)

    return Stopping(off_by_one)


def test_a_checkpoint_on_six_rows(tmp_path, tiny):
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
    found = json.loads(result.stdout.splitlines()[-1])
    assert found == json.loads((out / "metrics.json").read_text())
    assert found["data"] == {
        "name": "six.csv.gz",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert (found["task"], found["unit"], found["split"]) == ("solvation", "kcal/mol", "a")
    assert (found["engine"], found["beams"], found["partial"]) == ("torch", 1, False)
    assert found["model"] == str(tiny)
    counts = found["counts"]
    assert (counts["asked"], counts["answered"], counts["bad_molecules"]) == (6, 5, 1)
    assert set(found["metrics"]) >= {"mae", "rmse", "r2", "interval_hit_rate"}
    with (out / "predictions.csv").open() as file:
        predictions = list(csv.DictReader(file))
    assert [row["status"] for row in predictions] == ["ok"] * 4 + ["bad_molecule", "ok"]
    errors = [
        abs(float(row["answer"]) - float(row["target"])) for row in predictions if row["answer"]
    ]
    mae = found["metrics"]["mae"]
    assert mae["value"] == pytest.approx(sum(errors) / 5)
    assert mae["low"] < mae["value"] < mae["high"]
    assert (out / "evaluation.png").stat().st_size > 10_000
    assert "6 of 6 rows" in result.stderr
    assert "1 failed" in result.stderr


def test_a_table_for_people(engine, data):
    engine(FakeEngine(off_by_one))
    result = run("--model", "m", "--task", "solvation", "--data", data)
    assert result.exit_code == 0, result.output
    assert "Solvation Gibbs free energy: m on data.csv, 4 rows" in result.stdout
    assert "5 rows, 4 measured, 4 asked: 3 answered, 0 unparsed, 1 bad molecules" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if "mae, kcal/mol" in line]
    assert re.split(r"\s{2,}", line.strip()) == ["mae, kcal/mol", "1", "1 to 1", "3", "left out"]
    assert "unanswered" in result.stdout
    assert "calibration_error" in result.stdout
    assert "…" not in result.stdout
    assert engine.options == [{"beams": 1, "pad_query": False}]


def test_all_options_are_in_the_result(engine, data):
    engine(FakeEngine(off_by_one))
    arguments = ("--endpoint", "http://x", "--task", "solvation", "--data", data, "--json")
    result = run(*arguments, "--beams", 5, "--limit", 2, "--seed", 3, "--bootstrap", 50)
    found = json.loads(result.stdout)
    assert engine.options == [{"beams": 5, "pad_query": False}]
    assert (found["beams"], found["limit"], found["seed"]) == (5, 2, 3)
    assert (found["model"], found["engine"], found["split"]) == ("http://x", "http", None)
    assert found["bootstrap"] == {"resamples": 50, "level": 0.95}
    assert (found["counts"]["measured"], found["counts"]["asked"]) == (4, 2)


def test_the_seed_is_that_of_the_draw_and_of_the_bootstrap(engine, data, tmp_path):
    engine(FakeEngine(lambda task, pair: said(task.name, pair.row % 7)))
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


def test_interrupted_is_reported_as_partial(engine, data, tmp_path):
    engine(stopping(2, KeyboardInterrupt()))
    out = tmp_path / "out"
    arguments = ("--model", "m", "--task", "solvation", "--data", data)
    result = run(*arguments, "--json", "--out", out)
    assert result.exit_code == 130
    found = json.loads(result.stdout)
    assert (found["partial"], found["stopped"]) == (True, "interrupted")
    assert found["counts"]["asked"] == 4
    assert found["counts"]["not_reached"] == 2
    assert found["metrics"]["mae"]["value"] == pytest.approx(1)
    with (out / "predictions.csv").open() as file:
        statuses = [row["status"] for row in csv.DictReader(file)]
    assert statuses == ["ok", "not_measured", "bad_molecule", "not_reached", "not_reached"]
    result = run(*arguments)
    assert result.exit_code == 130
    assert "Partial (interrupted): 2 of 4 rows were not reached" in result.stdout
    engine(stopping(0, KeyboardInterrupt()))
    result = run(*arguments, "--json")
    assert result.exit_code == 130
    assert json.loads(result.stdout)["metrics"] == {}


def test_an_engine_that_falls_over_when_interrupted(engine, data):
    error = RuntimeError("the engine is dead")
    error.__context__ = KeyboardInterrupt()
    engine(stopping(1, error))
    result = run("--model", "m", "--task", "solvation", "--data", data, "--json")
    assert result.exit_code == 130
    assert json.loads(result.stdout)["stopped"] == "interrupted"


def test_a_failing_engine_costs_only_the_rest(engine, data):
    arguments = ("--model", "m", "--task", "solvation", "--data", data, "--json")
    engine(stopping(3, ServerError("out of\nmemory")))
    result = run(*arguments)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["stopped"] == "ServerError: out of memory"
    assert found["counts"]["not_reached"] == 1
    engine(stopping(0, ServerError("no such model")))
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1] == "moltc: no such model"
    engine(stopping(0, ZeroDivisionError()))
    assert isinstance(run(*arguments).exception, ZeroDivisionError)


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
# Tests that a shell runs in the background inherit that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
app()
"""


def test_a_true_signal_and_a_noisy_engine(data):
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
def test_wrong_input_is_one_line(data, monkeypatch, options, reason):
    monkeypatch.chdir(data.parent)
    result = run("--data", data, *options)
    assert result.exit_code == 2
    assert reason in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert list(data.parent.iterdir()) == [data]


def test_nothing_to_ask_and_results_that_are_kept(engine, data, tmp_path):
    engine(FakeEngine(off_by_one))
    data.write_text(HEAD + "CCO,O,,test\n")
    arguments = ("--model", "m", "--task", "solvation", "--data", data)
    result = run(*arguments)
    assert result.exit_code == 2
    assert "data.csv has no row to ask about: 1 rows, none measured" in result.output
    data.write_text(HEAD + ROWS[0])
    out = tmp_path / "out"
    assert run(*arguments, "--out", out).exit_code == 0
    before = (out / "metrics.json").read_bytes()
    again = run(*arguments, "--out", out)
    assert again.exit_code == 2
    assert "has a metrics.json already" in again.output
    assert (out / "metrics.json").read_bytes() == before
    blocked = run(*arguments, "--out", data)
    assert blocked.exit_code == 2
    assert "data.csv: File exists" in blocked.output


def test_without_matplotlib_the_numbers_are_still_written(engine, data, tmp_path, monkeypatch):
    engine(FakeEngine(off_by_one))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out = tmp_path / "out"
    result = run("--model", "m", "--task", "solvation", "--data", data, "--out", out)
    assert result.exit_code == 0
    assert "moltc: no plot: " in result.stderr
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "predictions.csv"]


def test_progress_is_plain_lines_where_there_is_no_terminal(engine, data, monkeypatch):
    engine(FakeEngine(off_by_one))
    monkeypatch.setattr(ProgressBars, "every_s", 0.0)
    result = run("--model", "m", "--task", "solvation", "--data", data, "--json")
    lines = result.stderr.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"{done} of 4 rows" for done in (1, 2, 3, 4)]
    assert all(" rows/s" in line and "\x1b" not in line for line in lines)
    assert " s left" in lines[0]
    assert lines[-1].endswith("1 failed")


def test_progress_is_a_bar_on_a_terminal(engine, data, monkeypatch):
    engine(FakeEngine(off_by_one))
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = run("--model", "m", "--task", "solvation", "--data", data, "--json")
    assert result.exit_code == 0
    assert "\x1b[" in result.stderr
    assert "4/4" in result.stderr
    assert "1 failed" in result.stderr
    json.loads(result.stdout)
