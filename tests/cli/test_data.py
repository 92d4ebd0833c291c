"""The commands `moltc data list`, `stats`, `build` and `check`."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from moltc_vllm.cli import app
from moltc_vllm.data.dataset_registry import DATASETS
from tests.data.small import change, small_data

runner = CliRunner()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_data(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(autouse=True)
def folder(small, monkeypatch):
    monkeypatch.setenv("MOLTC_DATA", str(small))


def run(*arguments):
    return runner.invoke(app, ["data", *(str(argument) for argument in arguments)])


def last_line(result):
    return json.loads(result.stdout.splitlines()[-1])


def test_list_shows_data_sets_and_existing_files(monkeypatch, small):
    result = run("list")
    assert result.exit_code == 0
    for name, spec in DATASETS.items():
        assert f" {name} " in result.stdout
        assert spec.file in result.stdout
    sources = last_line(run("list", "--json"))["sources"].values()
    assert all(source["here"] and source["licence"] for source in sources)
    monkeypatch.delenv("MOLTC_DATA")
    sources = last_line(run("list", "--json"))["sources"].values()
    assert not any(source["here"] for source in sources)
    assert run("list", "--data", "nowhere").exit_code == 2


def test_stats_prints_tables_and_writes_histograms(tmp_path):
    result = run("stats", "--source", "freesolv", "--source", "chchminer", "--out", tmp_path / "h")
    assert result.exit_code == 0, result.output
    assert "2 labels" in result.stdout
    assert "kcal/mol" in result.stdout
    assert "task table" in result.stdout
    assert sorted(path.name for path in (tmp_path / "h").iterdir()) == [
        "chchminer.png",
        "freesolv.png",
    ]
    summaries = last_line(run("stats", "--json"))["sources"]
    assert [summary["name"] for summary in summaries] == list(DATASETS)
    assert {"table", "rule", "rule_on_valid"} == set(summaries[-1]["intervals"])


def test_build_passes_check_and_is_reproducible(tmp_path):
    out = tmp_path / "out"
    options = ["--pairs", 20, "--properties", 2, "--seed", 3, "--chain", "lower"]
    result = run("build", out, *options)
    assert result.exit_code == 0, result.output
    assert "records in" in result.stdout
    assert "chchminer-train: " in result.stderr  # progress without a terminal
    checked = run("check", out)
    assert checked.exit_code == 0, checked.output
    assert checked.stdout.count("ok   ") >= 6
    assert last_line(run("check", out, "--json"))["ok"] is True
    again = run("build", tmp_path / "again", *options, "--json")
    assert last_line(again) == json.loads((out / "manifest.json").read_text())
    assert last_line(again)["options"]["properties"] == 2
    assert run("build", out, *options).exit_code == 2


def test_check_of_the_data_sets_finds_nothing():
    checked = run("check")
    assert checked.exit_code == 0
    assert "0 found" in checked.stdout


def test_leak_is_named_and_exit_status_is_1(tmp_path, small):
    out, other = tmp_path / "out", tmp_path / "other"
    assert run("build", out, "--pairs", 0).exit_code == 0
    # After the build, the data set holds out all of its rows.
    shutil.copytree(small, other)
    change(other / DATASETS["freesolv"].file, lambda row: row.update(split="test"))
    checked = run("check", out, "--data", other)
    assert checked.exit_code == 1
    assert "FAIL no pair reveals a held-out answer:" in checked.stdout
    assert "reveals freesolv row" in checked.stdout
    report = last_line(run("check", out, "--data", other, "--json"))
    assert report["ok"] is False
    assert sum(len(check["found"]) for check in report["checks"] if not check["note"]) > 20


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["stats", "--source", "nothing"], "unknown data set 'nothing'"),
        (["check", "--source", "nothing"], "unknown data set 'nothing'"),
        (["check", "nowhere"], "nowhere is not a folder of instructions"),
        (["check", "nowhere", "--source", "freesolv"], "--source does not go with a folder"),
        (["build", "out", "--source", "nothing"], "unknown data set 'nothing'"),
        (["build", "out", "--properties", "0"], "number of properties is at least 1"),
        (["build", "out", "--split-by", "molecule", "--fraction", "2"], "fraction 2.0 of molecule"),
        (["build", "out", "--data", "nowhere"], "nowhere is not a folder of data files"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert reason in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_missing_data_folder_is_an_error(monkeypatch):
    monkeypatch.delenv("MOLTC_DATA")
    for arguments in (["stats"], ["check"], ["build", "out"]):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "set MOLTC_DATA, or --data" in result.output


def test_ctrl_c_during_build_leaves_nothing(tmp_path, small):
    command = [sys.executable, "-m", "moltc_vllm.cli", "data", "build", "out", "--pairs", "1000000"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT, and so would this child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        partial = tmp_path / ".out.partial"
        until = time.monotonic() + 120
        while not list(partial.glob("*.parquet")) and time.monotonic() < until:
            time.sleep(0.05)
        assert list(partial.glob("*.parquet"))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "moltc: interrupted; out was not written"
    assert list(tmp_path.iterdir()) == []
