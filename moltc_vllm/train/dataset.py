"""Everything a recipe trains and validates on, read once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moltc_vllm.chem import MoleculeError
from moltc_vllm.data.dataset import Row, draw_rows
from moltc_vllm.data.datasets import DATASETS
from moltc_vllm.data.libraries import read_libraries
from moltc_vllm.data.properties import calculated_properties, statement
from moltc_vllm.data.splits import TRAIN, VALID, Pair, flat_pair, read_parts
from moltc_vllm.data.unseen import KNOWN, read_unseen
from moltc_vllm.models.config import MoltcConfig
from moltc_vllm.models.tokenizer import MoltcTokenizer
from moltc_vllm.tasks import TASKS, Choice, Task, get_task
from moltc_vllm.train.examples import Examples, Molecules, make_examples
from moltc_vllm.train.recipe import PROPERTIES, Recipe

PROPERTY_PAIRS = 40_000
"""Random pairs of library molecules that are drawn for pretraining."""

YES = 1
"""Label of what a yes-or-no task asks about."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Examples by data set and part, and their molecules.

    Attributes:
        molecules: By number.
        train: What is trained on.
        valid: What is looked at; not for random pairs.
    """

    molecules: Molecules
    train: dict[str, Examples]
    valid: dict[str, Examples]


def read_training_data(
    recipe: Recipe,
    folder: Path,
    config: MoltcConfig,
    tokenizer: MoltcTokenizer,
    tell: Tell = lambda _: None,
) -> TrainingData:
    """Read the data sets of a recipe.

    Args:
        recipe: Names them, and draws validation pairs by its seed.
        folder: Of the data files.
        config: The model's; says which molecules are too large.
        tokenizer: The model's.
        tell: Is told what was read, a line for each data set.

    Raises:
        DataError: If a file cannot be read.
    """
    measured = _measured(recipe, folder)
    drawn = {
        name: draw_rows(rows, recipe.parts[name].limit, recipe.seed)
        for name, rows in measured.train.items()
    }
    learned = without_contradicted(drawn)
    looked_at: dict[str, list[Row]] = {}
    for name, rows in learned.items():
        if left := len(drawn[name]) - len(rows):
            tell(f"{name}: {left} pairs left out, which another data set says the contrary of")
        shown = rows if recipe.validate_on == "train" else measured.valid[name]
        looked_at[name] = draw_rows(shown, recipe.validate_pairs, recipe.seed)
    if PROPERTIES in recipe.parts:
        pairs = recipe.parts[PROPERTIES].limit or PROPERTY_PAIRS
        learned[PROPERTIES] = [
            row
            for row in property_rows(folder, pairs, recipe.seed)
            if not any(map(measured.is_aside, row.molecules))
        ]
    # All molecules at once: the processes that read them are started once.
    molecules = Molecules(config, blind="graph" in recipe.ablate)
    began = time.monotonic()
    molecules.add(
        text
        for rows in (*learned.values(), *looked_at.values())
        for row in rows
        for text in row.molecules
    )
    tell(f"{len(molecules.packed)} molecules read in {time.monotonic() - began:.0f} s")
    for error in molecules.refused:
        tell(f"left out: {error}")
    train, valid = (
        {
            name: make_examples(_task(name), rows, molecules, tokenizer, intervals=recipe.intervals)
            for name, rows in sets.items()
        }
        for sets in (learned, looked_at)
    )
    for name, examples in train.items():
        tell(f"{name}: {len(examples)} pairs, {len(valid.get(name, ()))} to validate with")
    return TrainingData(molecules, train, valid)


class _Measured(NamedTuple):
    """Rows of each data set, and which molecules must not be trained on."""

    train: dict[str, Sequence[Row]]
    valid: dict[str, Sequence[Row]]
    is_aside: Callable[[str], bool]


def _measured(recipe: Recipe, folder: Path) -> _Measured:
    names = [name for name in recipe.parts if name != PROPERTIES]
    if recipe.unseen is None:
        parts = read_parts(names, folder)
        return _Measured(
            {name: parts[name].rows[TRAIN] for name in names},
            {name: parts[name].rows[VALID] for name in names},
            lambda _: False,
        )
    unseen, parts = read_unseen(folder, recipe.unseen.seed, recipe.unseen.fraction)
    return _Measured(
        {name: unseen.rows[name][KNOWN] for name in names},
        {name: unseen.without_aside(parts[name].rows[VALID]) for name in names},
        unseen.is_aside,
    )


def tasks_of(recipe: Recipe) -> list[Task]:
    """The tasks that a recipe's data sets are about, in the order of all tasks."""
    learned = {_task(name).name for name in recipe.parts}
    return [task for name, task in TASKS.items() if name in learned]


def _task(name: str) -> Task:
    return get_task("pair_properties" if name == PROPERTIES else DATASETS[name].task)


def without_contradicted(learned: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """Leave out each "no" where another data set of the same yes-or-no task says "yes".

    Such negatives are pairs that one source has not heard of, so that another one's report is the
    better evidence.

    Args:
        learned: Rows to train on, by data set.
    """
    told: dict[str, set[Pair]] = {}
    for name, rows in learned.items():
        if _is_yes_or_no(_task(name)):
            told[name] = {flat_pair(row.molecules) for row in rows if row.target == YES}

    def contradicted(name: str, row: Row) -> bool:
        pair = flat_pair(row.molecules)
        return any(
            pair in pairs
            for other, pairs in told.items()
            if other != name and _task(other) == _task(name)
        )

    return {
        name: [row for row in rows if row.target == YES or not contradicted(name, row)]
        if name in told
        else rows
        for name, rows in learned.items()
    }


def _is_yes_or_no(task: Task) -> bool:
    return isinstance(task.kind, Choice) and {one.id for one in task.kind.labels} == {0, YES}


def property_rows(folder: Path, pairs: int, seed: int) -> list[Row]:
    """Random pairs of library molecules with their calculated properties, one by one.

    Raises:
        DataError: If a library cannot be read.
    """
    library = read_libraries(folder)
    rng = np.random.default_rng(seed)
    rows = []
    for number, chosen in enumerate(rng.choice(len(library), (pairs, 2)), 1):
        smiles = tuple(library[place] for place in chosen)
        try:
            known = [calculated_properties(text) for text in smiles]
        except MoleculeError:
            continue  # a library may hold anything
        rows.append(Row(number, smiles, statement(("molecule 1", "molecule 2"), known)))
    return rows
