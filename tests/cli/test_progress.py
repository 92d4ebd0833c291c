"""Progress of long commands: lines in a file, bars on a terminal."""

from itertools import count

import pytest

from moltc_vllm.cli import progress
from moltc_vllm.cli.progress import ProgressBars


@pytest.fixture
def clock(monkeypatch):
    """Advance the clock by one second at every call."""
    seconds = count()
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seconds)))


def test_progress_prints_periodic_lines_and_a_last_one(clock, capsys):
    with ProgressBars("rows") as bars:
        for done in range(1, 32):
            bars.update("train", done, 31)
        bars.print_line("written [x]")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "train: 10 of 31 rows",
        "train: 20 of 31 rows",
        "train: 30 of 31 rows",
        "train: 31 of 31 rows",
        "written [x]",
    ]
    assert "s left" in lines[0]
    assert "s left" not in lines[3]


def test_progress_prints_a_line_for_unfinished_task(clock, capsys):
    with ProgressBars("rows") as bars:
        bars.update("", 3, 1000, "1 failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("3 of 1,000 rows, ")
    assert line.endswith(", 1 failed")


def test_rate_excludes_items_done_before_start(clock, capsys):
    with ProgressBars("steps") as bars:
        bars.start_task("finetune", 900)
        bars.update("finetune", 902, 1000)
    (line,) = capsys.readouterr().err.splitlines()
    # Two steps in the two seconds until the line is written.
    assert line == "finetune: 902 of 1,000 steps, 1.0 steps/s, 98 s left"


def test_progress_shows_one_bar_per_task_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with ProgressBars("rows") as bars:
        bars.update("one", 2, 4, "no failures")
        bars.update("two", 5, 5)
    shown = capsys.readouterr().err
    for text in ("one", "two", "2/4", "5/5", "no failures", "rows/s", "\x1b["):
        assert text in shown
