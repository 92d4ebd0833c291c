"""`make train-mini` in its rehearsal: every stage, by heart, measured, and shipped."""

import json
import os
import subprocess
import sys
from pathlib import Path

from moltc_vllm.models.checkpoint import load_config, read_card
from moltc_vllm.train.mini import OVERFIT_MIN_HITS, STAGES
from tests.paths import data_dir


def test_the_rehearsal(tmp_path):
    command = [sys.executable, "-m", "moltc_vllm.train.mini", "--smoke", "--out", str(tmp_path)]
    environment = {**os.environ, "MOLTC_DATA": str(data_dir())}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    # Thirty-two pairs; `mini` itself fails if the loss has not fallen to a tenth.
    assert min(result["by_heart"].values()) >= OVERFIT_MIN_HITS
    shipped = Path(result["checkpoint"])
    card = read_card(shipped)
    assert [stage["name"] for stage in card["stages"]] == list(STAGES)
    config = load_config(shipped)
    assert config.tasks == card["tasks"]
    assert config.projector_sharing == "task_role"
    assert set(result["test"]) == set(card["trained_on"])
    assert all(metrics["pairs"] == 40 for metrics in result["test"].values())
