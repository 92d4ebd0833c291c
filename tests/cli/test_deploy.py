"""`moltc deploy` says what is wrong before anything starts."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from moltc_vllm.cli import app

CONFIGS = Path(__file__).parents[2] / "serve_configs"


def run(*arguments):
    return CliRunner().invoke(app, ["deploy", *map(str, arguments)])


def test_a_configuration_can_be_checked():
    done = run(CONFIGS / "cpu.yaml", "--check")
    assert done.exit_code == 0
    assert "http://127.0.0.1:8000" in done.output
    assert "http://127.0.0.1:9" in run(CONFIGS / "cpu.yaml", "--check", "--port", 9).output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.yaml"], "none.yaml cannot be read"),
        ([CONFIGS / "vllm-cpu.yaml"], "applications"),
        ([CONFIGS / "cpu.yaml", "--haproxy"], "HAProxy does not ask"),
        ([CONFIGS / "haproxy.yaml", "--address", "127.0.0.1:1", "--haproxy"], "since it was"),
    ],
)
def test_what_cannot_be_deployed_is_one_line(arguments, reason):
    done = run(*arguments, "--check")
    assert done.exit_code == 2
    lines = done.output.strip().splitlines()
    assert len(lines) == 1
    assert reason in lines[0]


def test_flags_that_vllm_does_not_know_are_found_before_anything_starts(tmp_path):
    text = (CONFIGS / "cpu.yaml").read_text()
    (tmp_path / "cpu.yaml").write_text(text.replace("max-num-seqs", "max-num-sequences"))
    done = run(tmp_path / "cpu.yaml", "--check")
    assert done.exit_code == 2
    assert "--max-num-sequences 64" in done.output
    assert "cpu.yaml: vLLM refuses the flags of moltc" in done.output
