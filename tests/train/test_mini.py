"""Rehearsal of `make train-mini`: overfit check, both stages, test metrics and card."""

import json
import os
import subprocess
import sys
from pathlib import Path

from moltc_vllm.models.checkpoint import load_config, read_card
from moltc_vllm.train.mini import OVERFIT_MIN_HITS, STAGES
from tests.paths import data_dir


def test_smoke_run_overfits_trains_and_ships(tmp_path):
    command = [sys.executable, "-m", "moltc_vllm.train.mini", "--smoke", "--out", str(tmp_path)]
    environment = {**os.environ, "MOLTC_DATA": str(data_dir())}
    process = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=600
    )
    assert process.returncode == 0, process.stderr[-2000:]
    summary = json.loads(process.stdout.splitlines()[-1])
    # The command itself fails if the loss does not fall to a tenth.
    assert min(summary["overfit_hits"].values()) >= OVERFIT_MIN_HITS
    shipped = Path(summary["checkpoint"])
    card = read_card(shipped)
    assert [stage["name"] for stage in card["stages"]] == list(STAGES)
    config = load_config(shipped)
    assert config.tasks == card["tasks"]
    assert config.projector_sharing == "task_role"
    assert set(summary["test"]) == set(card["trained_on"])
    assert all(metrics["pairs"] == 40 for metrics in summary["test"].values())
