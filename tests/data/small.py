"""A folder with some rows of every staged file, so that tests on real data take seconds."""

import csv
import gzip
from pathlib import Path

from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.data.libraries import LIBRARIES
from tests.paths import data_dir

ROWS = 40  # per file and split
GLOSSARY = "ddi_twosides_side_effects.csv.gz"


def small_data(folder: Path) -> Path:
    """Copy some rows of each split; in two files also rows that other files contain."""
    folder.mkdir()
    measured = {row["smiles"] for row in read("prop_esol.csv.gz")}
    hydrated = {row["solute_smiles"] for row in some(read("solv_freesolv.csv.gz"))}
    # FreeSolv's values are in CombiSolv, and ESOL's are the answers for pairs with water.
    shared_solutes = {
        "solv_combisolv_exp.csv.gz": hydrated,
        "solv_solubility_logs.csv.gz": measured,
    }
    dissolved = set()
    for file in sorted({spec.file for spec in DATASETS.values()}):
        rows = read(file)
        if file in shared_solutes:
            shared = [row for row in rows if row["solute_smiles"] in shared_solutes[file]]
            rows = some(row for row in shared if row["solvent_smiles"] == "O") + some(
                row for row in rows if row["solvent_smiles"] != "O"
            )
            dissolved |= {row["solute_smiles"] for row in rows}
        else:
            rows = some(rows)
        write(folder / file, rows)
    for file in LIBRARIES:
        if ".smi" in file:
            with gzip.open(data_dir() / file, "rt") as lines:
                kept = [line for line, _ in zip(lines, range(ROWS), strict=False)]
            (folder / file).write_bytes(gzip.compress("".join(kept).encode(), mtime=0))
        else:
            rows = read(file)
            kept = rows[:: len(rows) // ROWS]
            if file == "prop_esol.csv.gz":
                kept += [row for row in rows if row["smiles"] in dissolved and row not in kept]
            write(folder / file, kept)
    write(folder / GLOSSARY, read(GLOSSARY))
    return folder


def read(file):
    """Read the rows of a staged file."""
    with gzip.open(data_dir() / file, "rt", encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def some(rows, limit=ROWS):
    """Keep some rows of each split, evenly spaced: neighboring rows have the same molecule."""
    by_split = {}
    for row in rows:
        by_split.setdefault(row["split"], []).append(row)
    return [row for part in by_split.values() for row in part[:: -(-len(part) // limit)]]


def write(path, rows):
    """Write rows to a compressed CSV file."""
    with gzip.open(path, "wt", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def change(path, edit):
    """Rewrite a CSV file after editing every row."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    for row in rows:
        edit(row)
    write(path, rows)
