"""Several processes: each learns from its part of a batch, and all have the same weights."""

import json
import os
import subprocess
import sys

import pytest

from tests.train.test_loop import SMALL

SCRIPT = """
import sys
from pathlib import Path
import torch.distributed as dist
from moltc_vllm.train import loop
from moltc_vllm.train.recipe import load_recipe

class TrainingProgress:
    def tell(self, line): pass
    def at(self, step, steps, rate, loss): pass

batch = loop._Trainer._batch
def counted(self):
    made = batch(self)
    pairs = [None] * dist.get_world_size()
    dist.all_gather_object(pairs, made.pairs)
    whole = sum(part.pairs for part in self.recipe.parts.values())
    assert sum(pairs) == whole and min(pairs) > 0, f"of {whole} pairs the processes have {pairs}"
    return made
loop._Trainer._batch = counted

finish = loop._Trainer._finish
def checked(self, valid):
    sums = [float(weight.double().sum()) for weight in self.plain.parameters()]
    rows = [None] * dist.get_world_size()
    dist.all_gather_object(rows, sums)
    assert len(rows) == 2 and rows[0] == rows[1], "the processes have gone different ways"
    return finish(self, valid)
loop._Trainer._finish = checked
if __name__ == "__main__":
    recipe, data, run = sys.argv[1:]
    loop.train(load_recipe(recipe), Path(data), Path(run), TrainingProgress())
"""


@pytest.mark.slow
def test_two_processes_learn_together(made_data, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({**SMALL, "projectors": "task_role"}))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    run = subprocess.run(
        [*launch, str(script), str(recipe), str(made_data), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    assert (tmp_path / "run" / "checkpoint" / "config.json").is_file()
