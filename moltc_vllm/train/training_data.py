"""Examples that a recipe trains and validates on."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moltc_vllm.chem import MoleculeError
from moltc_vllm.data.dataset import Row, sample_rows
from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.data.libraries import read_libraries
from moltc_vllm.data.properties import calculate_properties, format_properties
from moltc_vllm.data.splits import (
    TRAIN,
    VALID,
    DatasetSplits,
    UnorderedPair,
    flat_pair,
    read_splits,
)
from moltc_vllm.data.unseen import KNOWN, read_unseen
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.tokenizer import MoltcTokenizer
from moltc_vllm.tasks import TASKS, Choice, Task, get_task, resolve_task
from moltc_vllm.train.examples import Examples, MoleculeTable, make_examples
from moltc_vllm.train.molecule_targets import MoleculeTargets
from moltc_vllm.train.recipe import PROPERTIES, Recipe

PROPERTY_PAIRS = 40_000
"""Default number of random pairs of library molecules for pretraining."""

POSITIVE = 1
"""Id of the positive label of a binary task."""

Message = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Examples of a recipe's data sets, and their molecules.

    Attributes:
        molecules: Table of the molecules of all examples.
        train: Training examples by data set.
        valid: Validation examples by data set; calculated properties have none.
        molecule_targets: Molecules of the auxiliary training with their targets, if the recipe has
            it.
    """

    molecules: MoleculeTable
    train: dict[str, Examples]
    valid: dict[str, Examples]
    molecule_targets: MoleculeTargets | None = None


def read_training_data(
    recipe: Recipe,
    folder: Path,
    config: MoltcConfig,
    tokenizer: MoltcTokenizer,
    message: Message = lambda _: None,
    *,
    cache: Path | None = None,
) -> TrainingData:
    """Read the data sets of a recipe.

    Args:
        recipe: Recipe with the mixture, and the seed that draws rows.
        folder: Folder of the data files.
        config: Configuration of the model, with its limits on molecule size.
        tokenizer: Tokenizer of the model.
        message: Callback that receives one line for each data set and each problem.
        cache: Folder for calculated targets of molecules, needed if the recipe has ``molecules``.

    Raises:
        DataError: If a file cannot be read, or a target needs a package that is not installed.
    """
    splits = _read_splits(recipe, folder)
    train = _training_rows(recipe, splits, config.tasks, message)
    valid = {
        name: sample_rows(
            train[name] if recipe.validate_on == "train" else splits.valid[name],
            recipe.validate_pairs,
            recipe.seed,
        )
        for name in train
    }
    if PROPERTIES in recipe.mixture:
        count = recipe.mixture[PROPERTIES].limit or PROPERTY_PAIRS
        train[PROPERTIES] = [
            row
            for row in property_rows(folder, count, recipe.seed)
            if not any(map(splits.is_held_out, row.molecules))
        ]
    molecules = MoleculeTable(config, blind="graph" in recipe.ablate)
    single = _single_molecules(recipe, folder, splits) if recipe.molecules else []
    _featurize(molecules, (*train.values(), *valid.values()), single, message)

    def examples(rows_by_name: Mapping[str, Sequence[Row]]) -> dict[str, Examples]:
        return {
            name: make_examples(
                dataset_task(name, config.tasks),
                rows,
                molecules,
                tokenizer,
                intervals=recipe.uses_intervals,
            )
            for name, rows in rows_by_name.items()
        }

    targets = None
    if recipe.molecules:
        if cache is None:
            raise ValueError("a recipe with 'molecules' needs a cache folder")
        targets = MoleculeTargets(recipe.molecules, molecules, single, cache, recipe.seed, message)
        message(f"molecules: {len(targets)} with calculated targets")
    data = TrainingData(molecules, examples(train), examples(valid), targets)
    for name, train_examples in data.train.items():
        valid_count = len(data.valid.get(name, ()))
        message(f"{name}: {len(train_examples)} training pairs, {valid_count} for validation")
    return data


class _Splits(NamedTuple):
    """Rows of each data set of a mixture, and the molecules that training may see.

    Attributes:
        train: Training rows by data set.
        valid: Validation rows by data set.
        datasets: Data sets that were read: all if single molecules are trained on as well.
        is_held_out: Predicate for molecules that are held out of training.
    """

    train: dict[str, Sequence[Row]]
    valid: dict[str, Sequence[Row]]
    datasets: Mapping[str, DatasetSplits]
    is_held_out: Callable[[str], bool]


def _read_splits(recipe: Recipe, folder: Path) -> _Splits:
    names = [name for name in recipe.mixture if name != PROPERTIES]
    if recipe.unseen is None:
        datasets = read_splits(DATASETS if recipe.molecules else names, folder)
        return _Splits(
            {name: datasets[name].rows[TRAIN] for name in names},
            {name: datasets[name].rows[VALID] for name in names},
            datasets,
            lambda _: False,
        )
    settings = recipe.unseen
    unseen, datasets = read_unseen(folder, settings.seed, settings.fraction, settings.by)
    return _Splits(
        {name: unseen.rows[name][KNOWN] for name in names},
        {name: unseen.drop_excluded(datasets[name].rows[VALID]) for name in names},
        datasets,
        unseen.is_excluded,
    )


def _training_rows(
    recipe: Recipe, splits: _Splits, checkpoint_tasks: Collection[str], message: Message
) -> dict[str, list[Row]]:
    """Draw each data set's training rows and drop the contradicted ones."""
    drawn = {
        name: sample_rows(rows, recipe.mixture[name].limit, recipe.seed)
        for name, rows in splits.train.items()
    }
    kept = without_contradicted(drawn, checkpoint_tasks)
    for name, rows in kept.items():
        if dropped := len(drawn[name]) - len(rows):
            message(f"{name}: dropped {dropped} negative pairs that another data set reports")
    return kept


def _single_molecules(recipe: Recipe, folder: Path, splits: _Splits) -> list[str]:
    """Return the molecules of the auxiliary training: those of all data sets, and a library's.

    Molecules that are held out to measure predictions for new ones are left out.
    """
    assert recipe.molecules is not None
    measured = dict.fromkeys(
        smiles
        for dataset in splits.datasets.values()
        for row in dataset.rows[TRAIN]
        for smiles in row.molecules
    )
    measured = {smiles: None for smiles in measured if not splits.is_held_out(smiles)}
    library = [
        smiles
        for smiles in read_libraries(folder)
        if smiles not in measured and not splits.is_held_out(smiles)
    ]
    # Molecules of the data sets come first, in their order; a limit draws from the library.
    drawn = np.random.default_rng(recipe.seed).permutation(len(library))
    return [*measured, *(library[index] for index in drawn)][: recipe.molecules.limit]


def _featurize(
    molecules: MoleculeTable,
    row_lists: Iterable[Sequence[Row]],
    single: Sequence[str],
    message: Message,
) -> None:
    """Featurize all molecules in one call, so that worker processes start only once."""
    start_time = time.monotonic()
    paired = (smiles for rows in row_lists for row in rows for smiles in row.molecules)
    molecules.add(itertools.chain(paired, single))
    seconds = time.monotonic() - start_time
    message(f"featurized {len(molecules.packed)} molecules in {seconds:.0f} s")
    for error in molecules.rejected:
        message(f"dropped a molecule: {error}")


def recipe_tasks(recipe: Recipe, checkpoint_tasks: Collection[str] = ()) -> list[Task]:
    """Return the tasks of a recipe's data sets, in the order of `TASKS`.

    Args:
        recipe: Recipe with the mixture.
        checkpoint_tasks: Names of the tasks of the checkpoint, as for `dataset_task`.
    """
    names = {dataset_task(name, checkpoint_tasks).name for name in recipe.mixture}
    return [task for name, task in TASKS.items() if name in names]


def dataset_task(name: str, checkpoint_tasks: Collection[str] = ()) -> Task:
    """Return the task that the rows of a data set are trained as.

    Args:
        name: Name of the data set, or ``properties``.
        checkpoint_tasks: Names of the tasks of the checkpoint; those of a run that an earlier
            version started may lack the data set's own task. Default: unknown.
    """
    task = get_task("pair_properties" if name == PROPERTIES else DATASETS[name].task)
    return resolve_task(task, checkpoint_tasks)


def without_contradicted(
    training: Mapping[str, list[Row]], checkpoint_tasks: Collection[str] = ()
) -> dict[str, list[Row]]:
    """Drop negative pairs that are positive in another data set of the same binary task.

    A negative pair in these data sets is one without a report, so a report in another data set is
    stronger evidence.

    Args:
        training: Training rows by data set.
        checkpoint_tasks: Names of the tasks of the checkpoint, as for `dataset_task`.
    """
    tasks = {name: dataset_task(name, checkpoint_tasks) for name in training}
    positives: dict[str, set[UnorderedPair]] = {}
    for name, rows in training.items():
        if _is_binary(tasks[name]):
            positives[name] = {flat_pair(row.molecules) for row in rows if row.target == POSITIVE}

    def is_contradicted(name: str, row: Row) -> bool:
        pair = flat_pair(row.molecules)
        return any(
            pair in pairs
            for other, pairs in positives.items()
            if other != name and tasks[other] == tasks[name]
        )

    return {
        name: [row for row in rows if row.target == POSITIVE or not is_contradicted(name, row)]
        if name in positives
        else rows
        for name, rows in training.items()
    }


def _is_binary(task: Task) -> bool:
    return isinstance(task.kind, Choice) and {label.id for label in task.kind.labels} == {
        0,
        POSITIVE,
    }


def property_rows(folder: Path, count: int, seed: int) -> list[Row]:
    """Draw random pairs of library molecules, with their calculated properties as target text.

    Pairs with a molecule that RDKit cannot read are dropped.

    Args:
        folder: Folder of the data files.
        count: Number of pairs to draw.
        seed: Seed of the draw.

    Raises:
        DataError: If a library cannot be read.
    """
    library = read_libraries(folder)
    rng = np.random.default_rng(seed)
    rows = []
    for row_number, indices in enumerate(rng.choice(len(library), (count, 2)), 1):
        smiles = tuple(library[index] for index in indices)
        try:
            properties = [calculate_properties(text) for text in smiles]
        except MoleculeError:
            continue
        rows.append(
            Row(row_number, smiles, format_properties(("molecule 1", "molecule 2"), properties))
        )
    return rows
