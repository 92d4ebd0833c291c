"""Small data sets in a folder, as the staged ones are called."""

import csv

SOLUTION = ("solute_smiles", "solvent_smiles", "log_s_mol_per_l", "split")
SOLVATION = ("solute_smiles", "solvent_smiles", "dg_solv_kcal_mol", "split")
DRUGS = ("smiles_1", "smiles_2", "label", "split")


def write(folder, file, header, rows):
    with (folder / f"{file}.csv.gz").open("w", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows([header, *rows])


def solubility(folder):
    """Mean of the training targets 3; one pair has no target."""
    rows = [
        ("C", "O", 1, "train"),
        ("CC", "O", 2, "train"),
        ("CCC", "O", 6, "train"),
        ("CCCC", "O", "", "train"),
        ("CO", "O", 4, "valid"),
        ("CN", "O", 2, "test"),
        ("CF", "O", 5, "test"),
    ]
    write(folder, "solv_solubility_logs", SOLUTION, rows)


def interactions(folder):
    """Three of four training pairs interact, and two of three of the test pairs."""
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
    write(folder, "ddi_chchminer", DRUGS, rows)
