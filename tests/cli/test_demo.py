"""``moltc demo`` as a user runs it."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_demo_runs_to_its_end(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "moltc_vllm.cli", "demo", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "24 pairs in" in run.stdout
    assert "syntax: extra open parentheses" in run.stdout
    assert (tmp_path / "report.html").read_text().count("<svg") == 44
