"""`moltc screen` with engines that need no model."""

import json
import os
import threading

import pyarrow.parquet as pa_parquet
import pytest
from typer.testing import CliRunner

from moltc_vllm.cli import app, screen_engines
from moltc_vllm.cli.screen import EXIT_FAILED_ROWS
from moltc_vllm.cli.screen_engines import EXIT_ENGINE_FAILED
from moltc_vllm.tasks.engine import EngineError
from tests.screening.fake_engines import FailingEngine, HashEngine


@pytest.fixture
def engine(monkeypatch):
    engine = HashEngine()
    use_engine(monkeypatch, engine)
    return engine


def use_engine(monkeypatch, engine):
    monkeypatch.setattr(screen_engines, "open_engine", lambda *_, **__: engine)


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


def test_screen_writes_parts_summary_and_top(engine, files):
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


def test_screen_that_is_complete_submits_nothing(engine, files):
    product(files)
    submitted = len(engine.submitted)
    repeated = product(files)
    assert repeated.exit_code == 0
    assert len(engine.submitted) == submitted
    assert "all 6 rows are done" in repeated.stderr
    assert "6 rows: 4 ok, 2 bad_molecule" in repeated.stdout


def test_retry_errors_submits_failed_pairs(monkeypatch, files):
    engine = FailingEngine()
    use_engine(monkeypatch, engine)
    assert "2 error" in product(files).stdout
    engine.failing = False
    assert "all 6 rows are done" in product(files).stderr
    retried = product(files, "--retry-errors")
    assert "resuming: 4 of 6 rows are done" in retried.stderr
    assert "6 rows: 4 ok, 2 bad_molecule" in retried.stdout
    assert engine.submitted_rows[6:] == [0, 3]


def test_strict_exits_with_failed_rows(engine, files):
    result = product(files, "--json", "--strict")
    assert result.exit_code == EXIT_FAILED_ROWS
    assert json.loads(result.stdout.splitlines()[-1])["statuses"] == {"ok": 4, "bad_molecule": 2}


def test_both_orders_submits_each_pair_twice(engine, files):
    (files / "pairs.csv").write_text("one,two\nCCO,O\nCO,CC\n")
    result = run(
        *("--task", "ddi", "--pairs", files / "pairs.csv", "--columns", "one", "two"),
        *("--out", files / "out", "--both-orders"),
    )
    assert result.exit_code == 0, result.output
    assert sorted(engine.submitted) == sorted(
        [("CCO", "O"), ("O", "CCO"), ("CO", "CC"), ("CC", "CO")]
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--limit", "2"), "holds a screen with different settings: limit was null, is 2"),
        (("--model", "nowhere"), "nowhere is not a checkpoint folder"),
    ],
)
def test_screen_refuses_other_settings_on_one_line(engine, files, more, message):
    assert product(files).exit_code == 0
    result = product(files, *more)
    assert result.exit_code == 2
    assert result.stderr.startswith("moltc: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_screen_needs_files(engine, files):
    result = run("--task", "ddi", "--out", files / "out")
    assert result.exit_code == 2
    assert "needs a file of pairs" in result.stderr
    assert not (files / "out").exists()


def test_screen_resumes_after_engine_failure(files, monkeypatch):
    from moltc_vllm.engines.http import ServerError

    class DyingEngine(HashEngine):
        def submit(self, task, pairs, question=None):
            yield from list(super().submit(task, [next(pairs)]))
            raise ServerError("the server\nis gone")

    use_engine(monkeypatch, DyingEngine())
    result = product(files, "--part-rows", "1")
    assert result.exit_code == EXIT_ENGINE_FAILED
    assert "moltc: the server is gone; run the same command again to resume" in result.stderr
    use_engine(monkeypatch, HashEngine())
    result = product(files, "--part-rows", "1")
    assert result.exit_code == 0
    assert "resuming: 1 of 6 rows are done" in result.stderr


def test_screen_reads_standard_input(engine, files):
    both = ("--left", "-", "--right", files / "solvents.csv", "--out", files / "out")
    text = "smiles,name\nCCO,ethanol\n"
    command_line = ["screen", "--task", "solvation", *map(str, both)]
    result = CliRunner().invoke(app, command_line, input=text)
    assert result.exit_code == 0, result.output
    table = pa_parquet.read_table(files / "out" / "part-000000.parquet")
    assert table["left_name"].to_pylist() == ["ethanol"] * 2
    # The same input resumes the screen, another one is refused.
    assert "all 2 rows are done" in CliRunner().invoke(app, command_line, input=text).stderr
    other = CliRunner().invoke(app, command_line, input=text + "CO,methanol\n")
    assert other.exit_code == 2
    assert "holds a screen with different settings: files.left.sha256" in other.stderr
    twice = run(*("--task", "ddi", "--left", "-", "--right", "-", "--out", files / "two"))
    assert "cannot be both --left and --right" in twice.stderr


def test_dry_run_estimates_and_writes_nothing(engine, files):
    (files / "left.csv").write_text("smiles,name\n" + "CCO,a\n" * 3000 + "C,b,c\n" * 7)
    both = ("--left", files / "left.csv", "--right", files / "solvents.csv")
    arguments = ("--task", "solvation", *both, "--out", files / "out", "--dry-run")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert not (files / "out").exists()
    assert "6,014 pairs in 2 parts" in result.stdout
    assert "cannot be read: 7 of the left rows" in result.stdout
    assert "1,024 pairs sampled" in result.stdout
    estimate = json.loads(run(*arguments, "--json").stdout.splitlines()[-1])
    assert estimate["pairs"] == 6014
    assert estimate["asked"] == 1024
    assert estimate["seconds"] == pytest.approx(6014 / estimate["pairs_per_s"])
    assert estimate["memory_bytes"] > 1 << 26
    assert 0 < estimate["disk_bytes"] < 1 << 20


def test_random_order_and_limit_give_sample(engine, files):
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


def test_summary_has_figures_of_run(engine, files):
    product(files)
    figures = json.loads((files / "out" / "summary.json").read_text())["run"]
    assert figures["rows"] == 6
    assert figures["rows_per_s"] == pytest.approx(6 / figures["seconds"], rel=0.5)
    spent = figures["reading_s"] + figures["engine_s"] + figures["writing_s"]
    assert 0 < spent <= figures["seconds"] + 0.01
    assert (files / "out" / "report.html").is_file()


def test_screen_reads_pipe(engine, files):
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
    ("more", "message"),
    [
        (("--label", "interaction"), "'solvation' has no labels"),
        (("--task", "ask", "--question", "Why?"), "the model does not answer 'ask', only ddi"),
        (("--endpoint", "http://host:port"), "http://host:port is not a URL"),
        (("--left", "."), "--left: . is a folder"),
        (("--actors", "0"), "--actors must be a number of at least 1"),
        (("--engine", "ray", "--endpoint", "http://host"), "takes --model, not --endpoint"),
    ],
)
def test_screen_refuses_impossible_options(engine, files, more, message):
    result = product(files, *more)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (files / "out").exists()


def test_summary_keeps_figures_of_earlier_run(engine, files):
    product(files)
    before = json.loads((files / "out" / "summary.json").read_text())["run"]
    product(files, "--top", "1")
    assert json.loads((files / "out" / "summary.json").read_text())["run"] == before
    assert len((files / "out" / "top.csv").read_text().splitlines()) == 2


def test_dry_run_reports_engine_failure(files, monkeypatch):
    class DyingEngine:
        def submit(self, task, pairs, question=None):
            raise EngineError("the engine is gone")

    use_engine(monkeypatch, DyingEngine())
    result = product(files, "--dry-run")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith("the engine is gone")
