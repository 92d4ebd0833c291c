"""Errors of ``moltc train`` are one line."""

import pytest
from typer.testing import CliRunner

from moltc_vllm.cli import app
from moltc_vllm.train import loop


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FloatingPointError("the loss of step 3 is nan; lower learning_rate"), 2),
        (ValueError("freesolv has no pairs to train on"), 2),
    ],
)
def test_error_of_a_run_is_one_line(monkeypatch, tmp_path, error, status):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(loop, "train", fail)
    arguments = ["train", "mini-smoke", "--out", tmp_path / "run", "--data", tmp_path]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == status
    assert result.stderr.strip().splitlines()[-1] == f"moltc: {error}"


def test_unknown_recipe_is_refused_with_the_known_ones(tmp_path):
    result = CliRunner().invoke(app, ["train", "nonsense", "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert "mini-finetune" in result.stderr
