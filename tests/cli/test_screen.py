"""`moltc screen` on the command line, over an engine that needs no model."""

import json
import os
import threading

import pyarrow.parquet as pa_parquet
import pytest
from typer.testing import CliRunner

from moltc_vllm.cli import app
from moltc_vllm.cli import screen as command
from moltc_vllm.tasks.engine import EngineError
from tests.screening.engines import FailingEngine, HashEngine


@pytest.fixture
def engine(monkeypatch):
    made = HashEngine()
    monkeypatch.setattr(command, "open_engine", lambda model, endpoint, name, score: made)
    return made


@pytest.fixture
def files(tmp_path):
    (tmp_path / "drugs.smi").write_text("CCO ethanol\nC1CC broken\nCO methanol\n")
    (tmp_path / "solvents.csv").write_text("smiles,name\nO,water\nCC#N,acetonitrile\n")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["screen", *map(str, arguments)])


def product(files, *more):
    both = ("--left", files / "drugs.smi", "--right", files / "solvents.csv")
    return run("--task", "solvation", *both, "--out", files / "out", *more)


def test_a_screen(engine, files):
    result = product(files)
    assert result.exit_code == 0, result.output
    assert "6 rows: 4 ok, 2 bad_molecule" in result.stdout
    assert "2  bad_molecule: syntax: " in result.stdout
    table = pa_parquet.read_table(files / "out" / "part-000000.parquet")
    assert table["left_name"].to_pylist() == [*["ethanol"] * 2, *["broken"] * 2, *["methanol"] * 2]
    assert table["right_name"].to_pylist() == ["water", "acetonitrile"] * 3
    assert len((files / "out" / "top.csv").read_text().splitlines()) == 5
    assert json.loads((files / "out" / "summary.json").read_text())["rows"] == 6
    manifest = json.loads((files / "out" / "manifest.json").read_text())["screen"]
    assert manifest["model"]["name"] == "moltc-mini"
    assert len(manifest["model"]["sha256"]) == 64
    # Again: nothing is asked, all is told.
    asked = len(engine.asked)
    again = product(files)
    assert again.exit_code == 0
    assert len(engine.asked) == asked
    assert "all 6 rows are there" in again.stderr


def test_errors_are_asked_again(monkeypatch, files):
    engine = FailingEngine()
    monkeypatch.setattr(command, "open_engine", lambda model, endpoint, name, score: engine)
    assert "2 error" in product(files).stdout
    engine.failing = False
    assert "all 6 rows are there" in product(files).stderr
    again = product(files, "--retry-errors")
    assert "going on: 4 of 6 rows are there" in again.stderr
    assert "6 rows: 4 ok, 2 bad_molecule" in again.stdout
    assert engine.places[6:] == [0, 3]


def test_json_and_strict(engine, files):
    result = product(files, "--json", "--strict")
    assert result.exit_code == command.FAILED_ROWS
    assert json.loads(result.stdout.splitlines()[-1])["statuses"] == {"ok": 4, "bad_molecule": 2}


def test_columns_and_both_orders(engine, files):
    (files / "pairs.csv").write_text("one,two\nCCO,O\nCO,CC\n")
    result = run(
        *("--task", "ddi", "--pairs", files / "pairs.csv", "--columns", "one", "two"),
        *("--out", files / "out", "--both-orders"),
    )
    assert result.exit_code == 0, result.output
    assert sorted(engine.asked) == sorted([("CCO", "O"), ("O", "CCO"), ("CO", "CC"), ("CC", "CO")])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--limit", "2"), "holds another screen: limit was null, is 2"),
        (("--model", "nowhere"), "nowhere is not a checkpoint folder"),
    ],
)
def test_what_is_wrong_is_one_line(engine, files, more, said):
    assert product(files).exit_code == 0
    result = product(files, *more)
    assert result.exit_code == 2
    assert result.stderr.startswith("moltc: ")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_no_files(engine, files):
    result = run("--task", "ddi", "--out", files / "out")
    assert result.exit_code == 2
    assert "needs a file of pairs" in result.stderr
    assert not (files / "out").exists()


def test_an_engine_that_is_gone(files, monkeypatch):
    from moltc_vllm.engines.http import ServerError

    class Gone(HashEngine):
        def submit(self, task, pairs, question=None):
            yield from list(super().submit(task, [next(pairs)]))
            raise ServerError("the server\nis gone")

    monkeypatch.setattr(command, "open_engine", lambda *_, **__: Gone())
    result = product(files, "--part-rows", "1")
    assert result.exit_code == command.STOPPED
    assert "moltc: the server is gone; run the same command again to go on" in result.stderr
    monkeypatch.setattr(command, "open_engine", lambda *_, **__: HashEngine())
    result = product(files, "--part-rows", "1")
    assert result.exit_code == 0
    assert "going on: 1 of 6 rows are there" in result.stderr


def test_standard_input(engine, files):
    both = ("--left", "-", "--right", files / "solvents.csv", "--out", files / "out")
    text = "smiles,name\nCCO,ethanol\n"
    command_line = ["screen", "--task", "solvation", *map(str, both)]
    result = CliRunner().invoke(app, command_line, input=text)
    assert result.exit_code == 0, result.output
    table = pa_parquet.read_table(files / "out" / "part-000000.parquet")
    assert table["left_name"].to_pylist() == ["ethanol"] * 2
    # The same goes on, another one is another screen.
    assert "all 2 rows are there" in CliRunner().invoke(app, command_line, input=text).stderr
    other = CliRunner().invoke(app, command_line, input=text + "CO,methanol\n")
    assert other.exit_code == 2
    assert "holds another screen: files.left.sha256" in other.stderr
    twice = run(*("--task", "ddi", "--left", "-", "--right", "-", "--out", files / "two"))
    assert "cannot be both left and right" in twice.stderr


def test_a_dry_run_writes_nothing(engine, files):
    (files / "left.csv").write_text("smiles,name\n" + "CCO,a\n" * 3000 + "C,b,c\n" * 7)
    both = ("--left", files / "left.csv", "--right", files / "solvents.csv")
    asked = ("--task", "solvation", *both, "--out", files / "out", "--dry-run")
    result = run(*asked)
    assert result.exit_code == 0, result.output
    assert not (files / "out").exists()
    assert "6,014 pairs in 2 parts" in result.stdout
    assert "cannot be read: 7 of the left rows" in result.stdout
    assert "1,024 pairs tried" in result.stdout
    found = json.loads(run(*asked, "--json").stdout.splitlines()[-1])
    assert found["pairs"] == 6014
    assert found["asked"] == 1024
    assert found["seconds"] == pytest.approx(6014 / found["pairs_per_s"])
    assert found["memory_bytes"] > 1 << 26
    assert 0 < found["disk_bytes"] < 1 << 20


def test_a_sample_in_random_order(engine, files):
    (files / "left.csv").write_text("smiles\n" + "".join(f"{'C' * n}\n" for n in range(1, 99)))
    both = ("--left", files / "left.csv", "--right", files / "solvents.csv")
    result = run(
        *("--task", "solvation", *both, "--out", files / "out"),
        *("--order", "random", "--seed", "3", "--limit", "20"),
    )
    assert result.exit_code == 0, result.output
    rows = pa_parquet.read_table(files / "out" / "part-000000.parquet")["row"].to_pylist()
    assert len(set(rows)) == 20
    assert max(rows) > 98


def test_figures_of_the_run(engine, files):
    product(files)
    figures = json.loads((files / "out" / "summary.json").read_text())["run"]
    assert figures["rows"] == 6
    assert figures["rows_per_s"] == pytest.approx(6 / figures["seconds"], rel=0.5)
    spent = figures["reading_s"] + figures["engine_s"] + figures["writing_s"]
    assert 0 < spent <= figures["seconds"] + 0.01
    assert (files / "out" / "report.html").is_file()


def test_a_pipe_is_read_whole(engine, files):
    os.mkfifo(files / "pipe")
    text = b"smiles,name\n" + b"CCO,ethanol\n" * 20_000
    writer = threading.Thread(target=(files / "pipe").write_bytes, args=(text,))
    writer.start()
    both = ("--left", files / "pipe", "--right", files / "solvents.csv")
    result = run("--task", "solvation", *both, "--out", files / "out", "--limit", "10")
    writer.join()
    assert result.exit_code == 0, result.output
    assert json.loads((files / "out" / "summary.json").read_text())["rows"] == 10


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--label", "interaction"), "'solvation' has no labels"),
        (("--task", "ask", "--question", "Why?"), "the model does not answer 'ask', only ddi"),
        (("--endpoint", "http://host:port"), "http://host:port is no URL"),
        (("--left", "."), ". is a folder"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(engine, files, more, said):
    result = product(files, *more)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not (files / "out").exists()


def test_an_earlier_run_s_figures_stay(engine, files):
    product(files)
    before = json.loads((files / "out" / "summary.json").read_text())["run"]
    product(files, "--top", "1")
    assert json.loads((files / "out" / "summary.json").read_text())["run"] == before
    assert len((files / "out" / "top.csv").read_text().splitlines()) == 2


def test_a_dry_run_of_an_engine_that_is_gone(files, monkeypatch):
    class Gone:
        def submit(self, task, pairs, question=None):
            raise EngineError("the engine is gone")

    monkeypatch.setattr(command, "open_engine", lambda *_, **__: Gone())
    result = product(files, "--dry-run")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith("the engine is gone")
