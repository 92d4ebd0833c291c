"""Command-line options of `benchmarks/accuracy.py`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from baselines import chemprop_pairs
from baselines.problem import SCORABLE_DATASETS, SPLITS
from common import DATA

METHODS = ("trivial", "fingerprints", "chemprop", "moltc")
DATASET_NAMES = [spec.name for spec in SCORABLE_DATASETS]
DEFAULT_DATASETS = [
    "combisolv_exp",
    "freesolv",
    "deep4chem_absorption",
    "deep4chem_emission",
    "chchminer",
    "zhangddi",
    "drugbank86",
    "solubility",
]


def build_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser of both subcommands, whose name is ``command`` in the result."""
    parser = argparse.ArgumentParser(description=description)
    commands = parser.add_subparsers(required=True, dest="command")
    run = commands.add_parser("run", help="run methods and append their results to a file")
    _add_run_options(run)
    table = commands.add_parser("table", help="print the results as Markdown")
    table.add_argument("results", type=Path, help="results (JSON Lines)")
    for command in (run, table):
        command.add_argument("--plot", type=Path, help="PNG file to plot the results to")
    return parser


def _add_run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("--method", nargs="+", choices=METHODS, required=True)
    run.add_argument(
        "--data",
        nargs="+",
        choices=DATASET_NAMES,
        default=DEFAULT_DATASETS,
        metavar="NAME",
        help="data sets to score",
    )
    run.add_argument("--out", type=Path, required=True, help="results (JSON Lines) to append to")
    run.add_argument("--folder", type=Path, default=DATA, help="folder of the data files")
    run.add_argument("--split", choices=SPLITS, default="published")
    run.add_argument(
        "--fraction",
        type=float,
        default=0.1,
        help="fraction of molecules to hold out with `--split unseen`",
    )
    run.add_argument(
        "--split-seed", type=int, default=0, help="seed of the selection of held-out molecules"
    )
    run.add_argument(
        "--also",
        nargs="+",
        choices=DATASET_NAMES,
        default=[],
        metavar="NAME",
        help="further data sets to train on, if they have the same task",
    )
    run.add_argument(
        "--related",
        action="store_true",
        help="do not train on rows that related data sets hold out, as for one model of all",
    )
    run.add_argument("--seed", type=int, default=0, help="seed of the methods and the bootstrap")
    run.add_argument("--bootstrap", type=int, default=1000, help="number of resamples")
    run.add_argument("--threads", type=int, default=1)
    run.add_argument(
        "--trees", type=int, help="number of trees of `fingerprints`; default: by task"
    )
    run.add_argument(
        "--epochs",
        type=int,
        default=chemprop_pairs.EPOCHS,
        help="number of epochs of `chemprop`, at least 3",
    )
    run.add_argument(
        "--chemprop-python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter with chemprop",
    )
    run.add_argument("--model", type=Path, help="checkpoint folder of `moltc`")
    run.add_argument("--engine", choices=["vllm", "torch"], default="torch")
    run.add_argument(
        "--predictions",
        type=Path,
        help="predictions.csv of `moltc evaluate --out`, instead of --model",
    )
    run.add_argument("--name", help="name of the moltc model in the results")
    run.add_argument("--train-rows", type=int, help="number of rows the moltc model was trained on")
    run.add_argument("--train-cpu-s", type=float, help="CPU seconds of the moltc model's training")


def check_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exit with a usage error if the options of `moltc` contradict each other."""
    if "moltc" not in arguments.method:
        return
    if (arguments.model is None) == (arguments.predictions is None):
        parser.error("moltc needs either --model or --predictions")
    if arguments.predictions is not None and arguments.split == "unseen":
        parser.error(
            "--split unseen needs --model: predictions do not tell what their model was trained on"
        )
    if arguments.predictions is not None and len(arguments.data) > 1:
        parser.error("--predictions are of one data set; name it with --data")
