"""Whole screens: speed, memory, and kills."""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
from peak_memory import PeakMemory
from screening_output import equal_up_to_rounding, read_rows, row_counts, write_libraries

from moltc_vllm.tasks import Answer, get_task
from moltc_vllm.tasks.engine import Pair


def scale(options: argparse.Namespace) -> dict[str, Any]:
    """Screen a product of drugs and library molecules with a real engine."""
    with tempfile.TemporaryDirectory() as name:
        files = write_libraries(Path(name), options.first, options.second)
        return _run_screen([*files, "--out", str(Path(name) / "out")], options)


def _run_screen(arguments: Iterable[str], options: argparse.Namespace) -> dict[str, Any]:
    """Run ``moltc screen``; return its own JSON output and its peak memory."""
    command = [*_screen_command(options), *arguments, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process, PeakMemory(process.pid) as peak:
        output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"moltc screen exited with status {process.returncode}")
    line = next(line for line in reversed(output.splitlines()) if line.startswith("{"))
    return {**json.loads(line), "peak_memory_bytes": peak.bytes}


def _screen_command(options: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "moltc_vllm.cli", "screen"]
    return [
        *(*command, "--model", str(options.model)),
        *("--task", options.task, "--engine", options.engine),
    ]


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the memory of screens of 100,000 and 1,000,000 pairs, in a process each.

    An engine without a model answers, so that only the screen's own memory can grow.
    """
    runs: dict[str, Any] = {}
    for second in (2_000, 20_000):
        process = subprocess.run(
            [
                *(sys.executable, Path(__file__).with_name("screening.py")),
                *("at-once", "--second", str(second)),
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        result = json.loads(process.stdout.splitlines()[-1])
        print(f"{result['pairs']:,} pairs: {result['peak_memory_bytes'] / 2**20:.1f} MiB")
        runs[str(result["pairs"])] = result
    small, large = (result["peak_memory_bytes"] for result in runs.values())
    return {"runs": runs, "growth": large / small - 1}


class InstantEngine:
    """Engine without a model that answers every pair with the same number."""

    def submit(
        self, task: str, pairs: Iterable[Pair], question: str | None = None
    ) -> Iterator[tuple[Pair, Answer]]:
        """See `moltc_vllm.tasks.engine.Engine`."""
        definition = get_task(task)
        answer = definition.parse_answer(definition.write(-3.2))
        for pair in pairs:
            yield pair, answer


def at_once(options: argparse.Namespace) -> dict[str, Any]:
    """Run a single screen of `memory` in this process."""
    from moltc_vllm.screening.config import Ranking, ScreenConfig
    from moltc_vllm.screening.finalize import finalize
    from moltc_vllm.screening.prepare import prepare
    from moltc_vllm.screening.run import LocalExecutor, run_screen

    with tempfile.TemporaryDirectory() as name, PeakMemory() as peak:
        folder = Path(name)
        write_libraries(folder, options.first, options.second)
        left, right = folder / "left.smi", folder / "right.smi"
        begin = time.perf_counter()
        config = ScreenConfig("solvation", folder / "out", left=left, right=right)
        screen = prepare(config, {}).screen
        assert run_screen(screen, LocalExecutor(InstantEngine()))
        answered = time.perf_counter()
        finalize(screen, Ranking())
        end = time.perf_counter()
    result = {"pairs": len(screen.plan), "peak_memory_bytes": peak.bytes}
    result |= {"screen_s": answered - begin, "finish_s": end - answered}
    print(json.dumps(result))
    return result


def kills(options: argparse.Namespace) -> dict[str, Any]:
    """Compare a screen that is killed at random moments with an undisturbed one."""
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [*write_libraries(folder, options.first, options.second), "--part-rows", "500"]
        begin = time.monotonic()
        _run_screen([*files, "--out", str(folder / "undisturbed")], options)
        undisturbed_s = time.monotonic() - begin
        command = [*_screen_command(options), *files, "--out", str(folder / "killed")]
        moments = []
        for _ in range(options.kills):
            after_s = rng.uniform(0.05, 0.9) * undisturbed_s / 2
            if not _kill_screen(command, after_s):
                break
            parts = len(list((folder / "killed").glob("part-*.parquet")))
            moments.append({"after_s": round(after_s, 1), "parts": parts})
            print(f"killed after {after_s:.1f} s with {parts} parts written", flush=True)
        _run_screen([*files, "--out", str(folder / "killed")], options)
        undisturbed, killed = read_rows(folder / "undisturbed"), read_rows(folder / "killed")
    return {
        "kills": moments,
        **row_counts(undisturbed, killed),
        "same_but_for_rounding": sum(
            equal_up_to_rounding(first, second)
            for first, second in zip(undisturbed, killed, strict=True)
        ),
    }


def _kill_screen(command: list[str], after_s: float) -> bool:
    """Start a screen and send it SIGKILL after a time.

    Args:
        command: Command of the screen.
        after_s: Time until the kill, in seconds.

    Returns:
        Whether the screen was killed; false if it had finished before.
    """
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after_s)
        return False
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # An engine without its screen exits by itself; killing it saves the time until then.
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.kill()
    return True
