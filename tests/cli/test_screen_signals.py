"""Signals with vLLM as the engine; a terminal sends Ctrl-C to the screen and its engine at once."""

import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pa_parquet
import pytest

from moltc_vllm.cli.screen import EXIT_INTERRUPTED


@pytest.mark.slow
@pytest.mark.parametrize("multiprocessing", ["0", "1"])  # the defaults without and with a GPU
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_screen_finishes_started_parts_on_signal(tiny, tmp_path, sent, multiprocessing):
    left, right, out = (tmp_path / name for name in ("left.smi", "right.smi", "out"))
    left.write_text("".join(f"{'C' * n}O\n" for n in range(1, 41)))
    right.write_text("".join(f"{'C' * n}N\n" for n in range(1, 101)))
    command = [
        *(sys.executable, "-m", "moltc_vllm.cli", "screen", "--task", "ddi", "--text"),
        *("--left", str(left), "--right", str(right), "--out", str(out)),
        *("--model", str(tiny), "--part-rows", "300"),
    ]
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": multiprocessing}
    with subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 240
        while not list(out.glob("part-*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.05)
        if sent is signal.SIGINT:
            os.killpg(process.pid, sent)  # as a terminal does
        else:
            process.send_signal(sent)  # as a scheduler does
        _, output = process.communicate(timeout=240)
    assert process.returncode == EXIT_INTERRUPTED, output.decode()[-2000:]
    assert "run the same command again to resume" in output.decode()
    parts = sorted(out.glob("part-*.parquet"))
    assert 1 <= len(parts) < 14
    resumed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert "resuming: " in resumed.stderr
    rows = [row for path in sorted(out.glob("part-*.parquet")) for row in read_rows(path)]
    assert sorted(row["row"] for row in rows) == list(range(1, 4001))
    # No pair failed because its engine ended first.
    assert {row["status"] for row in rows} <= {"ok", "unparsed"}


def read_rows(path):
    return pa_parquet.read_table(path).to_pylist()
