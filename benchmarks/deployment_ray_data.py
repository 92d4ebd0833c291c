"""Screen on Ray Data with a killed actor compared with a screen in one process."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from replicas import wait_until
from screening_output import max_difference, read_rows, row_counts, write_libraries


def offline(options: argparse.Namespace) -> dict[str, Any]:
    """Run the same screen locally and with two actors, one of which gets SIGKILL."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "moltc_vllm.cli", "screen", "--task", "solvation"]
        command += write_libraries(folder, 50, 100)
        command += ["--model", str(options.model), "--part-rows", "250"]
        begin = time.monotonic()
        subprocess.run([*command, "--out", str(folder / "local")], check=True)
        local_s = time.monotonic() - begin
        begin = time.monotonic()
        actors = _screen_with_killed_actor(command, folder / "ray")
        ray_s = time.monotonic() - begin
        local, ray = read_rows(folder / "local"), read_rows(folder / "ray")
    return {
        **row_counts(local, ray),
        "others_differ_by_at_most": max(
            (
                max_difference(first, second)
                for first, second in zip(local, ray, strict=True)
                if first != second
            ),
            default=0.0,
        ),
        "actors": actors,
        "local_s": local_s,
        "ray_s": ray_s,
    }


def _screen_with_killed_actor(command: list[str], out: Path) -> int:
    """Run the screen on Ray, kill an actor after four parts, and return the number of actors."""
    process = subprocess.Popen([*command, "--out", str(out), "--engine", "ray", "--actors", "2"])
    wait_until(lambda: len(list(out.glob("part-*.parquet"))) >= 4, 300)
    actors = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "MapWorker" in " ".join(child.cmdline()[:1])
    ]
    print(f"killing one of {len(actors)} actors", flush=True)
    actors[0].send_signal(signal.SIGKILL)
    if process.wait():
        raise SystemExit(f"moltc screen exited with status {process.returncode}")
    return len(actors)
