"""A made data folder that every recipe of the tests can be followed with, in seconds."""

import csv
import gzip
import random

import pytest

from moltc_vllm.data import COLUMNS
from moltc_vllm.data.datasets import DATASETS

SOLUTES = ["CCO", "CCN", "CC(C)O", "c1ccccc1O", "CC(=O)O", "CCCl", "CCBr", "CCCCO", "CC#N", "CCOC"]
SOLVENTS = ["O", "CO", "CCCCCC", "ClC(Cl)Cl", "Cc1ccccc1", "CS(C)=O", "CC(C)=O", "C1CCOC1"]


def _rows(source, pairs):
    columns = COLUMNS[source.task]
    rng = random.Random(source.name)
    for number, pair in enumerate(pairs):
        split = "train" if number < 0.8 * len(pairs) else ("valid", "test")[number % 2]
        target = {
            "ddi": number // 2 % 2,  # both in every split
            "ddi_type": rng.randint(1, 86),
            "ddi_side_effects": "1 2",
            # Something that can be learned: the size of the solute.
            "solvation": round(-len(pair[0]) / 2 - len(pair[1]) / 5, 2),
            "quantum_yield": 0.5,
        }.get(source.task, 300 + 10 * len(pair[0]))
        yield {
            **dict(zip(columns.molecules, pair, strict=True)),
            columns.target: target,
            "split": split,
        }


@pytest.fixture(scope="session")
def made_data(tmp_path_factory):
    """Files of all pair data sets; the labels of some are noise."""
    folder = tmp_path_factory.mktemp("data")
    pairs = [(solute, solvent) for solute in SOLUTES for solvent in SOLVENTS]
    for file in dict.fromkeys(source.file for source in DATASETS.values()):
        rows = {}
        mixed = random.Random(file).sample(pairs, len(pairs))
        for source in DATASETS.values():
            if source.file == file:
                for row in _rows(source, mixed):
                    key = tuple(row[name] for name in COLUMNS[source.task].molecules)
                    rows.setdefault(key, {}).update(row)
        _write(folder / file, list(rows.values()))
    effects = [{"side_effect_id": n, "name": name} for n, name in ((1, "nausea"), (2, "headache"))]
    _write(folder / "ddi_twosides_side_effects.csv.gz", effects)
    return folder


def _write(path, rows):
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


class Quiet:
    """A watcher that remembers; it may end the run after some steps."""

    def __init__(self, stop_after=None):
        self.lines = []
        self.losses = {}
        self.stop_after = stop_after

    def tell(self, line):
        self.lines.append(line)

    def at(self, step, steps, pairs_per_second, loss):
        self.losses[step] = loss
        if step == self.stop_after:
            raise ConnectionResetError("the machine is gone")
