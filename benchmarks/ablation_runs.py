"""Runs of ablations: variants times seeds, resumed from the file of results."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accuracy_table import read_results
from common import DATA, environment_info


class AblationRun(NamedTuple):
    """One variant with one seed.

    Attributes:
        variant: Name of the variant.
        seed: Seed of the run.
        folder: Folder for its training runs.
        options: Options of the command.
    """

    variant: str
    seed: int
    folder: Path
    options: argparse.Namespace


def run_ablations(
    summary: str,
    runs: str,
    variants: Collection[str],
    steps: tuple[int, int],
    measure: Callable[[AblationRun], dict[str, Any]],
    table: Callable[[Sequence[dict[str, Any]]], str],
) -> None:
    """Compute the results that the file of the command line lacks, and print the table of all.

    Args:
        summary: Help text of the command.
        runs: Default folder of the training runs.
        variants: Names of the variants.
        steps: Default numbers of pretraining and fine-tuning steps.
        measure: Function that trains a run and returns its results.
        table: Function that formats results.
    """
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--out", type=Path, required=True, help="results (JSON Lines)")
    parser.add_argument("--runs", type=Path, default=Path(runs), help="folder of the training runs")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data files")
    parser.add_argument("--variant", nargs="+", choices=list(variants), default=list(variants))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--pretrain-steps", type=int, default=steps[0])
    parser.add_argument("--finetune-steps", type=int, default=steps[1])
    options = parser.parse_args()
    counts = [options.pretrain_steps, options.finetune_steps]
    results = read_results(options.out) if options.out.is_file() else []
    for seed in options.seeds:
        for variant in options.variant:
            identity = {"variant": variant, "seed": seed, "steps": counts}
            if any(identity.items() <= result.items() for result in results):
                continue
            folder = options.runs / f"{variant}-{seed}-{'-'.join(map(str, counts))}"
            measured = measure(AblationRun(variant, seed, folder, options))
            results.append({**identity, **measured, **environment_info("torch")})
            with options.out.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
    print(table([result for result in results if result["steps"] == counts]))
