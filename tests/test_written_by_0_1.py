"""Folders written by version 0.1.0 are read and resumed (`tests/written_by_0_1`).

The folder holds a checkpoint of a few thousand weights, a screen stopped after two of five parts,
a training run stopped after step 7 with its state of step 5, and the rows and losses that version
0.1.0 computed without a stop. Its training data are made up.
"""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import moltc_vllm
from moltc_vllm.models.checkpoint import load_config, load_model
from moltc_vllm.train.loop import train
from moltc_vllm.train.recipe import load_recipe
from tests.train.helpers import RecordingProgress

WRITTEN = Path(__file__).parent / "written_by_0_1"


@pytest.fixture
def written(tmp_path):
    """A copy of the folder, as resuming writes into it."""
    return shutil.copytree(WRITTEN, tmp_path / "written")


def test_checkpoint_is_loaded():
    config = load_config(WRITTEN / "checkpoint")
    model = load_model(WRITTEN / "checkpoint")
    assert config.text_config.hidden_size == 32
    assert sum(weight.numel() for weight in model.parameters()) > 10_000


def resume_screen(written, part_rows):
    return moltc_vllm.screen(
        "solvation",
        left=written / "left.smi",
        right=written / "right.csv",
        out=written / "screen",
        model=written / "checkpoint",
        engine="torch",
        part_rows=part_rows,
        block=2,
    )


def test_screen_is_resumed(written):
    first_part = written / "screen" / "part-000000.parquet"
    before = first_part.read_bytes()
    screened = resume_screen(written, part_rows=7)
    rows = screened.to_arrow().to_pylist()
    expected = pq.read_table(WRITTEN / "expected_rows.parquet").to_pylist()
    assert len(rows) == len(expected) == 30
    for row, wanted in zip(rows, expected, strict=True):
        for name, value in wanted.items():
            if isinstance(value, float):
                value = pytest.approx(value, rel=1e-4)
            assert row[name] == value, name
    assert first_part.read_bytes() == before


def test_screen_with_other_settings_is_refused(written):
    with pytest.raises(ValueError, match="part_rows"):
        resume_screen(written, part_rows=8)


@pytest.mark.filterwarnings("ignore:.*renamed:FutureWarning")
def test_run_is_resumed(written):
    recipe = load_recipe(written / "recipe.yaml")
    progress = RecordingProgress()
    result = train(recipe, written / "run_data", written / "run", progress)
    expected = {
        int(step): loss
        for step, loss in json.loads((WRITTEN / "expected_losses.json").read_text()).items()
    }
    assert sorted(progress.losses) == [6, 7, 8, 9, 10, 11, 12]
    for step, loss in progress.losses.items():
        assert loss == pytest.approx(expected[step], rel=1e-3)
    assert load_config(result.checkpoint).tasks == ["ddi", "solvation"]


def test_run_with_another_recipe_is_refused(written):
    recipe = load_recipe(written / "recipe.yaml", ["seed=7"])
    with pytest.raises(ValueError, match="seed"):
        train(recipe, written / "run_data", written / "run", RecordingProgress())
