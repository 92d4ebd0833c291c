"""Fine-tune a checkpoint by a recipe, and evaluate the result.

Needs the measured data: set MOLTC_DATA (docs/guides/data.md). An interrupted run resumes.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from moltc_vllm.checkpoints.shipped import shipped_checkpoint

HERE = Path(__file__).parent
MOLTC = [sys.executable, "-m", "moltc_vllm.cli"]


def main() -> None:
    """Train by the recipe beside this script, then evaluate on FreeSolv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the measured data")
    parser.add_argument("--out", type=Path, default=Path("runs/finetune-solvation"))
    parser.add_argument("--steps", type=int, help="optimizer steps, instead of the recipe's")
    options = parser.parse_args()

    train = [*MOLTC, "train", str(HERE / "finetune_solvation.yaml"), "--out", str(options.out)]
    train += ["--model", str(shipped_checkpoint()), "--data", str(options.data)]
    if options.steps:
        train += ["--set", f"max_steps={options.steps}"]
    subprocess.run(train, check=True)

    evaluate = [*MOLTC, "evaluate", "--task", "solvation", "--split", "test", "--engine", "torch"]
    evaluate += ["--data", str(options.data / "solv_freesolv.csv.gz")]
    evaluate += ["--model", str(options.out / "checkpoint")]
    subprocess.run(evaluate, check=True)


if __name__ == "__main__":
    main()
