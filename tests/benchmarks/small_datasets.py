"""Small data sets under the file names of the real ones."""

import csv

SOLUBILITY_COLUMNS = ("solute_smiles", "solvent_smiles", "log_s_mol_per_l", "split")
SOLVATION_COLUMNS = ("solute_smiles", "solvent_smiles", "dg_solv_kcal_mol", "split")
DDI_COLUMNS = ("smiles_1", "smiles_2", "label", "split")


def write_dataset(folder, name, columns, rows):
    with (folder / f"{name}.csv.gz").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def write_solubility(folder):
    """Write a data set whose training targets have mean 3; one pair has no target."""
    rows = [
        ("C", "O", 1, "train"),
        ("CC", "O", 2, "train"),
        ("CCC", "O", 6, "train"),
        ("CCCC", "O", "", "train"),
        ("CO", "O", 4, "valid"),
        ("CN", "O", 2, "test"),
        ("CF", "O", 5, "test"),
    ]
    write_dataset(folder, "solv_solubility_logs", SOLUBILITY_COLUMNS, rows)


def write_interactions(folder):
    """Write a data set in which 3 of 4 training pairs and 2 of 3 test pairs interact."""
    rows = [
        ("C", "CC", 1, "train"),
        ("C", "CCC", 1, "train"),
        ("CC", "CCC", 1, "train"),
        ("C", "CO", 0, "train"),
        ("CC", "CO", 1, "valid"),
        ("CCC", "CO", 0, "valid"),
        ("CN", "C", 1, "test"),
        ("CN", "CC", 0, "test"),
        ("CN", "CCC", 1, "test"),
    ]
    write_dataset(folder, "ddi_chchminer", DDI_COLUMNS, rows)
