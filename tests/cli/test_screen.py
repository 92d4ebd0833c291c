"""`moltc screen` on the command line, over an engine that needs no model."""

import json

import pyarrow.parquet as pa_parquet
import pytest
from typer.testing import CliRunner

from moltc_vllm.cli import app
from moltc_vllm.cli import screen as command
from tests.screen.engines import HashEngine


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
    from moltc_vllm.screen import ServerError

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
