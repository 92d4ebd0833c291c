"""``moltc calibrate`` writes a calibration that the engines use."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from moltc_vllm.checkpoints.shipped import shipped_checkpoint
from moltc_vllm.cli import app
from moltc_vllm.evaluate import fit_calibration
from moltc_vllm.models.calibration import load_calibration
from moltc_vllm.models.familiarity import load_familiarity
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.tasks.engine import Pair
from tests.data.small import small_data

DATASETS = ("--dataset", "combisolv_exp", "--dataset", "zhangddi")


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of the shipped checkpoint without calibration."""
    folder = shutil.copytree(shipped_checkpoint(), tmp_path / "model")
    for name in ("calibration.json", "familiarity.safetensors"):
        (folder / name).unlink(missing_ok=True)
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


def test_calibrate_writes_calibration_and_index(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(fit_calibration, "MIN_ROWS", 10)
    data = small_data(tmp_path / "data")
    other = shutil.copytree(checkpoint, tmp_path / "other")
    arguments = ("--model", checkpoint, "--data", data, *DATASETS)
    result = run(*arguments, "--unseen-fraction", 0.3, "--json")
    assert result.exit_code == 0, result.output
    parts = json.loads(result.stdout.splitlines()[-1])
    assert {(part["dataset"], part["part"]) for part in parts} >= {
        ("combisolv_exp", "valid"),
        ("combisolv_exp", "one_unseen"),
        ("zhangddi", "one_unseen"),
    }
    for part in parts:
        assert 0 <= part["error"] <= 1
        assert (part["coverage"] is None) == (part["dataset"] == "zhangddi")
    calibration = load_calibration(checkpoint)
    assert set(calibration.tasks) == {"solvation", "ddi"}
    assert calibration.fitted_on["unseen"] == {"fraction": 0.3, "seed": 0, "by": "molecule"}
    recorded = calibration.fitted_on["cross_validation"]
    assert [part["rows"] for part in recorded] == [part["rows"] for part in parts]
    assert calibration.tasks["solvation"].groups["all"].scores
    assert not calibration.tasks["ddi"].groups["all"].scores
    assert load_familiarity(checkpoint).tasks == ("solvation", "ddi")
    ((_, answer),) = TorchEngine(checkpoint).submit("solvation", [Pair(0, ("CCO", "O"))])
    assert answer.low < answer.value < answer.high
    assert answer.familiarity is not None
    # A model of the same recipe gets the calibration, but keeps its own index, or none.
    result = run(*arguments, "--limit", 20, "--out", other)
    assert result.exit_code == 0, result.output
    assert "combisolv_exp" in result.output
    assert load_calibration(other).tasks["solvation"] is not None
    assert load_familiarity(other) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "nowhere"), "nowhere is not a checkpoint folder"),
        (("--dataset", "twosides"), "no data set with labels or numbers"),
    ],
)
def test_calibrate_rejects_wrong_options(tmp_path, checkpoint, arguments, message):
    result = run("--model", checkpoint, "--data", small_data(tmp_path / "data"), *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not (checkpoint / "calibration.json").exists()
