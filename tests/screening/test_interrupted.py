"""Ctrl-C with the true engine, as a terminal sends it: to the screen and to its engine at once."""

import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pa_parquet
import pytest

from moltc_vllm.cli.screen import INTERRUPTED


@pytest.mark.slow
@pytest.mark.parametrize("apart", ["0", "1"])  # as it is without a GPU, and with one
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_what_was_begun_is_finished_and_the_rest_follows(tiny, tmp_path, sent, apart):
    left, right, out = (tmp_path / name for name in ("left.smi", "right.smi", "out"))
    left.write_text("".join(f"{'C' * n}O\n" for n in range(1, 41)))
    right.write_text("".join(f"{'C' * n}N\n" for n in range(1, 101)))
    command = [
        *(sys.executable, "-m", "moltc_vllm.cli", "screen", "--task", "ddi", "--text"),
        *("--left", str(left), "--right", str(right), "--out", str(out)),
        *("--model", str(tiny), "--part-rows", "300"),
    ]
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": apart}
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
        _, said = process.communicate(timeout=240)
    assert process.returncode == INTERRUPTED, said.decode()[-2000:]
    assert "run the same command again to go on" in said.decode()
    parts = sorted(out.glob("part-*.parquet"))
    assert 1 <= len(parts) < 14
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "going on: " in again.stderr
    rows = [row for path in sorted(out.glob("part-*.parquet")) for row in _rows(path)]
    assert sorted(row["row"] for row in rows) == list(range(1, 4001))
    # None of them fell to the engine's end.
    assert {row["status"] for row in rows} <= {"ok", "unparsed"}


def _rows(path):
    return pa_parquet.read_table(path).to_pylist()
