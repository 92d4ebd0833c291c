"""A trained checkpoint with all that a user has to know: measured on test data, and what of."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from moltc_vllm.data.datasets import DATASETS
from moltc_vllm.data.splits import TEST, read_parts
from moltc_vllm.models.checkpoint import (
    CheckpointError,
    load_model,
    load_tokenizer,
    read_card,
    write_card,
)
from moltc_vllm.tasks import get_task
from moltc_vllm.train.batch import Collator
from moltc_vllm.train.examples import Molecules, make_examples
from moltc_vllm.train.validate import validate
from moltc_vllm.utils.atomic_files import new_folder

LICENCE = (
    "For research use only: several of the data sets are licensed for non-commercial use, or state "
    "no licence. The code is Apache-2.0."
)
_HOW = (
    "From the distribution of the answers' first tokens: numbers by their expected value, "
    "interactions of two drugs by the mean of both orders. Pairs that a data set holds back were "
    "in no training row that would tell their answer; molecules were, in other pairs."
)


def measure(
    checkpoint: Path, data: Path, names: Iterable[str], most: int | None = None
) -> dict[str, dict[str, float]]:
    """Metrics of a checkpoint on the test parts, as training looks at its valid parts.

    Args:
        checkpoint: What is measured.
        data: Folder of the data files.
        names: Data sets.
        most: At most the first so many pairs of each.

    Raises:
        CheckpointError: If the checkpoint is not whole.
        DataError: If a data set is unknown or cannot be read.
    """
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    molecules = Molecules(model.config)
    rows = {name: part.rows[TEST][:most] for name, part in read_parts(names, data).items()}
    molecules.add(one for part in rows.values() for row in part for one in row.molecules)
    examples = {
        name: make_examples(get_task(DATASETS[name].task), part, molecules, tokenizer)
        for name, part in rows.items()
    }
    found = validate(model, Collator(molecules, model.config, tokenizer), tokenizer, examples)
    return {name: {"pairs": len(examples[name]), **metrics} for name, metrics in found.items()}


def ship(
    checkpoint: Path,
    data: Path,
    folder: Path,
    *,
    name: str,
    note: str = "",
    most: int | None = None,
) -> None:
    """Copy a trained checkpoint with its full card.

    Args:
        checkpoint: A run's.
        data: Folder of the data files, for the test parts.
        folder: Where to; must not exist, or be empty.
        name: Of the model.
        note: What else is to be known; empty: nothing.
        most: Measure on so many pairs of each data set only.

    Raises:
        CheckpointError: If ``folder`` is in use or the checkpoint is not whole.
        DataError: If the data cannot be read.
    """
    before = read_card(checkpoint)
    stages = before["stages"]
    trained_on = sorted({one for stage in stages for one in stage["parts"] if one in DATASETS})
    card = {
        "name": name,
        "prompt_style": before["prompt_style"],
        "tasks": before["tasks"],
        "licence": LICENCE,
        "trained_on": trained_on,
        "data": {
            one: {
                "file": DATASETS[one].file,
                "task": DATASETS[one].task,
                "origin": DATASETS[one].origin,
                "licence": DATASETS[one].licence,
            }
            for one in trained_on
        },
        "metrics": {
            "how": _HOW,
            "valid": before["metrics"]["valid"],
            "test": measure(checkpoint, data, trained_on, most),
        },
        "commands": ["make train-mini"],
        "stages": stages,
        **({"note": note} if note else {}),
    }
    with new_folder(folder, CheckpointError) as partial:
        shutil.copytree(checkpoint, partial, dirs_exist_ok=True)
        write_card(partial, card)
