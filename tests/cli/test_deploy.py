"""`moltc deploy` reports errors before anything starts."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from moltc_vllm.cli import app

CONFIGS = Path(__file__).parents[2] / "serve_configs"


def run(*arguments):
    return CliRunner().invoke(app, ["deploy", *map(str, arguments)])


def test_check_prints_url():
    result = run(CONFIGS / "cpu.yaml", "--check")
    assert result.exit_code == 0
    assert "http://127.0.0.1:8000" in result.output
    assert "http://127.0.0.1:9" in run(CONFIGS / "cpu.yaml", "--check", "--port", 9).output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.yaml"], "none.yaml cannot be read"),
        ([CONFIGS / "vllm-cpu.yaml"], "applications"),
        ([CONFIGS / "cpu.yaml", "--haproxy"], "which HAProxy ignores"),
        (
            [CONFIGS / "haproxy.yaml", "--address", "127.0.0.1:1", "--haproxy"],
            "no effect on a running cluster",
        ),
    ],
)
def test_check_reports_error_in_one_line(arguments, reason):
    result = run(*arguments, "--check")
    assert result.exit_code == 2
    lines = result.output.strip().splitlines()
    assert len(lines) == 1
    assert reason in lines[0]


def test_check_reports_flags_that_vllm_refuses(tmp_path):
    text = (CONFIGS / "cpu.yaml").read_text()
    (tmp_path / "cpu.yaml").write_text(text.replace("max-num-seqs", "max-num-sequences"))
    result = run(tmp_path / "cpu.yaml", "--check")
    assert result.exit_code == 2
    assert "--max-num-sequences 64" in result.output
    assert "cpu.yaml: vLLM refuses the flags of moltc" in result.output
