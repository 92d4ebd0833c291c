"""Registry of the methods that `benchmarks/accuracy.py` compares, the fastest ones first."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from baselines import chemprop_pairs, rates, trivial
from baselines.molecule_features import FeatureStore
from baselines.problem import COMPUTED, Problem, Solution
from moltc_vllm.tasks import Choice, Task

Settings = dict[str, Any]
Options = argparse.Namespace


@dataclass(frozen=True, slots=True)
class Method:
    """Method that is trained on the train rows of a problem and answers its scored rows.

    Attributes:
        label: Name in tables.
        settings: Function of task and options that returns what identifies a run.
        solve: Function of problem and options that trains and predicts.
        is_seeded: Whether another seed gives other answers.
        learns_more: Whether it gains from further data sets of the same quantity.
        uses_computed: Whether it is trained on computed targets first.
        only_labels: Whether it answers only tasks with labels.
    """

    label: str
    settings: Callable[[Task, Options], Settings]
    solve: Callable[[Problem, Options], Solution]
    is_seeded: bool = True
    learns_more: bool = True
    uses_computed: bool = False
    only_labels: bool = False

    def answers(self, task: Task) -> bool:
        """Return whether the method can answer a task."""
        return isinstance(task.kind, Choice) or not self.only_labels

    def reads_computed(self, task: Task) -> bool:
        """Return whether the method is trained on computed targets of a task."""
        return self.uses_computed and task.name in COMPUTED


def _store(options: Options) -> FeatureStore:
    return FeatureStore(options.features)


def _kernel_ridge(problem: Problem, options: Options) -> Solution:
    from baselines import kernel_ridge

    return kernel_ridge.solve(problem, seed=options.seed)


def _kernel_ridge_settings(task: Task, _: Options) -> Settings:
    from baselines import kernel_ridge

    return kernel_ridge.settings_of(task)


def _descriptors(problem: Problem, options: Options) -> Solution:
    from baselines import descriptors

    return descriptors.solve(
        problem,
        _store(options),
        seed=options.seed,
        threads=options.threads,
        trees=options.trees,
    )


def _descriptors_settings(task: Task, options: Options) -> Settings:
    from baselines import descriptors

    return descriptors.settings_of(task, options.trees)


def _fingerprints(problem: Problem, options: Options) -> Solution:
    from baselines import fingerprints

    return fingerprints.solve(
        problem, seed=options.seed, threads=options.threads, trees=options.trees
    )


def _fingerprints_settings(task: Task, options: Options) -> Settings:
    from baselines import fingerprints

    return fingerprints.settings_of(task, options.trees)


def _chemprop(problem: Problem, options: Options) -> Solution:
    return chemprop_pairs.solve(
        problem,
        python=options.chemprop_python,
        seed=options.seed,
        threads=options.threads,
        epochs=options.epochs,
    )


def _network(label: str, *features: str, encoder: str = "features") -> Method:
    """Return a network of pairs with fixed features or another encoder."""

    def settings(task: Task, options: Options) -> Settings:
        from baselines import pair_networks

        chosen = pair_networks.settings_of(task, features, encoder, **_changes(options))
        return pair_networks.as_json(chosen)

    def solve(problem: Problem, options: Options) -> Solution:
        from baselines import pair_networks

        chosen = pair_networks.settings_of(problem.task, features, encoder, **_changes(options))
        return pair_networks.solve(
            problem, chosen, _store(options), seed=options.seed, threads=options.threads
        )

    return Method(label, settings, solve, uses_computed=True)


def _changes(options: Options) -> Settings:
    if options.dropout is None:
        return {}
    return {"dropout": options.dropout, "input_dropout": options.dropout}


METHODS = {
    "trivial": Method(
        "mean or most frequent label",
        lambda task, options: {},
        lambda problem, options: trivial.solve(problem),
        is_seeded=False,
        learns_more=False,
    ),
    "rates": Method(
        "rates",
        lambda task, options: rates.settings_of(task),
        lambda problem, options: rates.solve(problem),
        is_seeded=False,
    ),
    "kernel-ridge": Method("kernel ridge", _kernel_ridge_settings, _kernel_ridge, is_seeded=False),
    "descriptors": Method("LightGBM, RDKit 2D", _descriptors_settings, _descriptors),
    "morgan-mlp": _network("MLP, Morgan", "morgan"),
    "minimol-mlp": _network("MLP, MiniMol + RDKit 2D", "minimol", "rdkit"),
    "fingerprints": Method("LightGBM, Morgan", _fingerprints_settings, _fingerprints),
    "rdkit-mlp": _network("MLP, RDKit 2D", "rdkit"),
    "gin": _network("GIN", encoder="graph"),
    "smiles-lm": _network("SMILES language model", encoder="smiles"),
    "chemprop": Method(
        "chemprop",
        lambda task, options: chemprop_pairs.settings_of(task, options.epochs),
        _chemprop,
    ),
}
"""Methods by name. A checkpoint, ``moltc``, is not among them, because it has been trained."""

MOLTC = "moltc"
NAMES = (*METHODS, MOLTC)
