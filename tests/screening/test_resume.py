"""A screen is resumed after any end, and failed pairs are retried on request."""

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pyarrow.parquet as pa_parquet
import pytest

from moltc_vllm.screening import answer_columns
from moltc_vllm.screening.config import ScreenConfig
from moltc_vllm.screening.parts import mark_for_retry, part_path
from moltc_vllm.screening.prepare import prepare
from tests.screening.fake_engines import FailingEngine, HashEngine
from tests.screening.screens import MODEL, read_rows, run_config


@pytest.fixture
def config(tmp_path, left, right):
    return ScreenConfig(
        "solvation", tmp_path / "out", left=left, right=right, part_rows=10, block=4
    )


def test_screen_resumes_after_engine_failure(tmp_path, config):
    with pytest.raises(ConnectionError):
        run_config(config, HashEngine(fails_after=45))
    written = len(list(config.out.glob("part-*.parquet")))
    assert 2 < written < 9
    # One part was truncated, as if the disk had lost its end.
    truncated = part_path(config.out, 1)
    truncated.write_bytes(truncated.read_bytes()[:-20])
    engine = HashEngine()
    prepared, is_complete, progress = run_config(config, engine)
    assert prepared.resumed
    assert is_complete
    assert len(engine.submitted) < 91 - 10 * (written - 1)
    assert progress.updates[0][0] == 10 * (written - 1) + 1
    other = replace(config, out=tmp_path / "other")
    assert read_rows(prepared) == read_rows(run_config(other)[0])


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("task", ["solvation", "ddi"])
def test_retry_errors_submits_failed_pairs_only(tmp_path, config, task, interrupted):
    config = replace(config, task=task)
    expected = read_rows(run_config(config)[0])
    config = replace(config, out=tmp_path / "failing")
    prepared, is_complete, _ = run_config(config, FailingEngine())
    failed = {row["row"] for row in read_rows(prepared) if row["error"] == "too busy"}
    assert is_complete
    assert failed
    engine = FailingEngine(failing=False)
    if interrupted:  # parts were marked, but not computed; the second call just resumes
        prepare(replace(config, retry_errors=True), MODEL)
        prepared, is_complete, progress = run_config(config, engine)
    else:
        prepared, is_complete, progress = run_config(replace(config, retry_errors=True), engine)
    rows = read_rows(prepared)
    assert is_complete
    assert rows == expected
    # Neither unreadable molecules nor answered pairs are submitted again.
    assert {rows[position]["row"] for position in engine.submitted_rows} == failed
    assert progress.updates[-1][:2] == (len(expected), len(expected))
    engine = FailingEngine()
    run_config(replace(config, retry_errors=True), engine)
    assert engine.submitted_rows == []


def test_retry_errors_submits_nothing_without_errors(config):
    prepared, *_ = run_config(config)
    expected = read_rows(prepared)
    engine = FailingEngine()
    run_config(replace(config, retry_errors=True), engine)
    assert engine.submitted_rows == []
    mark_for_retry(config.out, 0)  # as if killed before the mark was removed
    prepared, is_complete, _ = run_config(config, engine)
    assert is_complete
    assert engine.submitted_rows == []
    assert read_rows(prepared) == expected


def test_retry_errors_keeps_old_parts_until_replaced(config):
    before = read_rows(run_config(config, FailingEngine())[0])
    with pytest.raises(ConnectionError):
        run_config(replace(config, retry_errors=True), HashEngine(fails_after=0))
    assert read_rows(prepare(config, MODEL)) == before


def test_screen_resumes_after_kill(tmp_path, left, right):
    command = [sys.executable, "-m", "tests.screening.fake_engines"]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    inputs = [str(left), str(right)]
    options = {"check": True, "capture_output": True, "timeout": 120}
    subprocess.run([*command, str(undisturbed), *inputs], **options)
    rng, kills = random.Random(1), 0
    while kills < 4:
        with subprocess.Popen(
            [*command, str(killed), *inputs],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout.readline()  # the first answers have arrived
            time.sleep(rng.uniform(0, 0.12))
            process.send_signal(signal.SIGKILL)
            process.communicate()
        kills += process.returncode == -signal.SIGKILL
    subprocess.run([*command, str(killed), *inputs], **options)
    names = sorted(path.name for path in undisturbed.glob("part-*.parquet"))
    assert names == sorted(path.name for path in killed.glob("part-*.parquet"))
    for name in names:
        assert pa_parquet.read_table(undisturbed / name) == pa_parquet.read_table(killed / name)
    manifests = [
        json.loads((folder / "manifest.json").read_text()) for folder in (undisturbed, killed)
    ]
    assert manifests[0] == manifests[1]


def test_emptied_folder_starts_new_screen(left, config):
    """Hidden files, such as the copies of the input tables, survive ``rm OUT/*``."""
    run_config(config)
    for path in config.out.iterdir():
        if path.name[0] != ".":
            path.unlink()
    left.write_text("smiles,name\nN,ammonia\n")
    prepared, is_complete, _ = run_config(config)
    assert is_complete
    assert {row["left_name"] for row in read_rows(prepared)} == {"ammonia"}


def test_screen_of_a_version_with_fewer_columns_keeps_its_columns(tmp_path, config, monkeypatch):
    with monkeypatch.context() as patch:
        names = ["status", "error", "value", "low", "high", "likeliest_low", "likeliest_high"]
        patch.setattr(answer_columns, "_current_names", lambda task, text: [*names, "confidence"])
        with pytest.raises(ConnectionError):
            run_config(config, HashEngine(fails_after=45))
        expected = read_rows(run_config(replace(config, out=tmp_path / "other"))[0])
    prepared, is_complete, _ = run_config(config)
    assert prepared.resumed
    assert is_complete
    rows = read_rows(prepared)
    assert rows == expected
    assert "familiarity" not in rows[0]


def test_screen_of_a_later_version_is_refused(config):
    run_config(config)
    path = config.out / "manifest.json"
    content = json.loads(path.read_text())
    content["screen"]["answer_columns"].append("spin")
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="unknown answer columns spin: use a newer version"):
        prepare(config, MODEL)
