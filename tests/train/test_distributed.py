"""Training with several processes, which divide each batch and keep equal weights."""

import json
import os
import subprocess
import sys

import pytest

from tests.train.helpers import SMALL_RECIPE

SCRIPT = """
import sys
from pathlib import Path
import torch.distributed as dist
from moltc_vllm.train import loop
from moltc_vllm.train.progress import NullTrainingProgress
from moltc_vllm.train.recipe import load_recipe

recipe = load_recipe(sys.argv[1])

batch = loop.StepBatches.batch
def counted_batch(self, step):
    result = batch(self, step)
    pairs = [None] * dist.get_world_size()
    dist.all_gather_object(pairs, result.num_pairs)
    total = recipe.pairs_per_step
    assert sum(pairs) == total and min(pairs) > 0, f"the processes have {pairs} of {total} pairs"
    return result
loop.StepBatches.batch = counted_batch

finish = loop._Trainer._finish
def checked_finish(self, valid):
    sums = [float(weight.double().sum()) for weight in self.model.parameters()]
    gathered = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, sums)
    assert len(gathered) == 2 and gathered[0] == gathered[1], "the processes' weights differ"
    return finish(self, valid)
loop._Trainer._finish = checked_finish
if __name__ == "__main__":
    loop.train(recipe, Path(sys.argv[2]), Path(sys.argv[3]), NullTrainingProgress())
"""


@pytest.mark.slow
def test_two_processes_share_batches_and_weights(generated_data, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({**SMALL_RECIPE, "projectors": "task_role"}))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    run = subprocess.run(
        [*launch, str(script), str(recipe), str(generated_data), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    assert (tmp_path / "run" / "checkpoint" / "config.json").is_file()
