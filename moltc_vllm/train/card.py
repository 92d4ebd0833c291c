"""Test metrics of a trained checkpoint, and the card that reports them."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moltc_vllm.data.dataset import Row
from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.data.splits import TEST, read_splits
from moltc_vllm.models.checkpoint import (
    CheckpointError,
    load_model,
    load_tokenizer,
    read_card,
    write_card,
)
from moltc_vllm.train.batch import Collator
from moltc_vllm.train.examples import MoleculeTable, make_examples
from moltc_vllm.train.training_data import dataset_task
from moltc_vllm.train.validate import validate
from moltc_vllm.utils.atomic_files import new_folder

LICENSE = (
    "For research use only: several of the data sets are licensed for non-commercial use, or state "
    "no license. The code is Apache-2.0."
)
_METHOD = (
    "Computed from the distribution of the answers' first tokens: numbers by their expected value, "
    "drug interactions by the mean of both orders. No training row reveals the answer of a pair "
    "that a data set holds out; its molecules may occur in other pairs."
)


def measure(
    checkpoint: Path, data: Path, names: Iterable[str], limit: int | None = None
) -> dict[str, dict[str, float]]:
    """Compute a checkpoint's metrics on test splits, as training does on validation splits.

    Args:
        checkpoint: Checkpoint folder.
        data: Folder of the data files.
        names: Names of the data sets.
        limit: Largest number of pairs of each data set, taken from its beginning; default: all.

    Returns:
        Number of pairs and metrics, by data set.

    Raises:
        CheckpointError: If the checkpoint is incomplete.
        DataError: If a data set is unknown or cannot be read.
    """
    rows = {name: dataset.rows[TEST][:limit] for name, dataset in read_splits(names, data).items()}
    return measure_rows(checkpoint, rows)


def measure_rows(
    checkpoint: Path, rows_by_name: Mapping[str, Sequence[Row]]
) -> dict[str, dict[str, float]]:
    """Compute a checkpoint's metrics on some rows of data sets; see `measure`.

    Args:
        checkpoint: Checkpoint folder.
        rows_by_name: Rows with targets, by data set.

    Raises:
        CheckpointError: If the checkpoint is incomplete.
    """
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    molecules = MoleculeTable(model.config)
    all_rows = (row for rows in rows_by_name.values() for row in rows)
    molecules.add(smiles for row in all_rows for smiles in row.molecules)
    examples = {
        name: make_examples(dataset_task(name, model.config.tasks), rows, molecules, tokenizer)
        for name, rows in rows_by_name.items()
    }
    collator = Collator(molecules, model.config, tokenizer)
    results = validate(model, collator, tokenizer, examples)
    return {name: {"pairs": len(examples[name]), **metrics} for name, metrics in results.items()}


def ship(
    checkpoint: Path,
    data: Path,
    folder: Path,
    *,
    name: str,
    note: str = "",
    limit: int | None = None,
) -> None:
    """Copy a trained checkpoint and write its full card, with test metrics.

    Args:
        checkpoint: Checkpoint folder of a training run.
        data: Folder of the data files, for the test splits.
        folder: Folder to write, which does not exist or is empty.
        name: Name of the model.
        note: Additional remark for the card; empty for none.
        limit: Largest number of test pairs of each data set; default: all.

    Raises:
        CheckpointError: If ``folder`` is not empty or the checkpoint is incomplete.
        DataError: If the data cannot be read.
    """
    training_card = read_card(checkpoint)
    stages = training_card["stages"]
    trained_on = _data_sets(stages)
    card = {
        "name": name,
        "prompt_style": training_card["prompt_style"],
        "tasks": training_card["tasks"],
        "licence": LICENSE,
        "trained_on": trained_on,
        "data": {
            data_set: _provenance(data_set, training_card["tasks"]) for data_set in trained_on
        },
        "metrics": {
            "how": _METHOD,
            "valid": training_card["metrics"]["valid"],
            "test": measure(checkpoint, data, trained_on, limit),
        },
        "commands": ["make train-mini"],
        "stages": stages,
        **({"note": note} if note else {}),
    }
    with new_folder(folder, CheckpointError) as partial:
        shutil.copytree(checkpoint, partial, dirs_exist_ok=True)
        write_card(partial, card)


def _data_sets(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the data sets with measured values that any stage was trained on, sorted by name."""
    mixtures = [
        stage["mixture"] if "mixture" in stage else stage["parts"]  # "parts" in version 0.1
        for stage in stages
    ]
    return sorted({name for mixture in mixtures for name in mixture if name in DATASETS})


def _provenance(data_set: str, tasks: Collection[str]) -> dict[str, str]:
    spec = DATASETS[data_set]
    return {
        "file": spec.file,
        "task": dataset_task(data_set, tasks).name,
        "origin": spec.origin,
        "licence": spec.license,
    }
