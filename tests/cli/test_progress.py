"""How far long work is: lines in a file, bars on a terminal."""

from itertools import count

import pytest

from moltc_vllm.cli import progress
from moltc_vllm.cli.progress import Bars


@pytest.fixture
def clock(monkeypatch):
    """Every look at the clock is a second later than the last one."""
    seconds = count()
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seconds)))


def test_a_line_now_and_then_and_at_the_end(clock, capsys):
    with Bars("rows") as bars:
        for done in range(1, 32):
            bars.at("train", done, 31)
        bars.tell("written [x]")
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


def test_work_that_ends_early_has_a_last_word(clock, capsys):
    with Bars("rows") as bars:
        bars.at("", 3, 1000, "1 failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("3 of 1,000 rows, ")
    assert line.endswith(", 1 failed")


def test_what_was_done_before_does_not_count_in_the_rate(clock, capsys):
    with Bars("steps") as bars:
        bars.begin("finetune", 900)
        bars.at("finetune", 902, 1000)
    (line,) = capsys.readouterr().err.splitlines()
    # Two steps in the two seconds until the line is written.
    assert line == "finetune: 902 of 1,000 steps, 1.0 steps/s, 98 s left"


def test_a_bar_of_each_part_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Bars("rows") as bars:
        bars.at("one", 2, 4, "no failures")
        bars.at("two", 5, 5)
    shown = capsys.readouterr().err
    for part in ("one", "two", "2/4", "5/5", "no failures", "rows/s", "\x1b["):
        assert part in shown
