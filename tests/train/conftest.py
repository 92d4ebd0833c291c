"""Generated data files, small enough to train on in seconds."""

import csv
import gzip
import random

import pytest

from moltc_vllm.data import COLUMNS
from moltc_vllm.data.dataset_registry import DATASETS

SOLUTES = ["CCO", "CCN", "CC(C)O", "c1ccccc1O", "CC(=O)O", "CCCl", "CCBr", "CCCCO", "CC#N", "CCOC"]
SOLVENTS = ["O", "CO", "CCCCCC", "ClC(Cl)Cl", "Cc1ccccc1", "CS(C)=O", "CC(C)=O", "C1CCOC1"]


def _rows(dataset, pairs):
    """Yield a row for each pair; targets of numbers depend on the sizes of the molecules."""
    columns = COLUMNS[dataset.task]
    rng = random.Random(dataset.name)
    for number, pair in enumerate(pairs):
        split = "train" if number < 0.8 * len(pairs) else ("valid", "test")[number % 2]
        target = {
            "ddi": number // 2 % 2,  # both labels in every split
            "ddi_biosnap": number // 2 % 2,
            "ddi_type": rng.randint(1, 86),
            "ddi_side_effects": "1 2",
            "solvation": round(-len(pair[0]) / 2 - len(pair[1]) / 5, 2),
            "quantum_yield": 0.5,
        }.get(dataset.task, 300 + 10 * len(pair[0]))
        yield {
            **dict(zip(columns.molecules, pair, strict=True)),
            columns.target: target,
            "split": split,
        }


@pytest.fixture(scope="session")
def generated_data(tmp_path_factory):
    """Folder with files of all pair data sets; the labels of some are noise."""
    folder = tmp_path_factory.mktemp("data")
    pairs = [(solute, solvent) for solute in SOLUTES for solvent in SOLVENTS]
    for file in dict.fromkeys(dataset.file for dataset in DATASETS.values()):
        rows = {}
        shuffled = random.Random(file).sample(pairs, len(pairs))
        for dataset in DATASETS.values():
            if dataset.file == file:
                for row in _rows(dataset, shuffled):
                    key = tuple(row[name] for name in COLUMNS[dataset.task].molecules)
                    rows.setdefault(key, {}).update(row)
        _write(folder / file, list(rows.values()))
    effects = [{"side_effect_id": n, "name": name} for n, name in ((1, "nausea"), (2, "Head ache"))]
    _write(folder / "ddi_twosides_side_effects.csv.gz", effects)
    return folder


def _write(path, rows):
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
