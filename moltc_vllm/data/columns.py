"""The table of columns: which columns of a data file hold a task's molecules and target."""

from __future__ import annotations

from typing import NamedTuple


class Glossary(NamedTuple):
    """Second file, which contains the names of the ids in the target column.

    The file is in the folder of the data file. Its name is that of the data file with a suffix, or
    a default name.

    Attributes:
        suffix: Suffix of the file name, before the file name extension.
        default: Default file name, without extension.
        id_column: Column of the ids.
        name_column: Column of the names.
    """

    suffix: str
    default: str
    id_column: str
    name_column: str


class TaskColumns(NamedTuple):
    """Column names of one task.

    Attributes:
        molecules: Columns of the molecules, in the order of the task's roles.
        target: Column of the target.
        glossary: File with the names of the ids in the target column, if these are ids.
    """

    molecules: tuple[str, ...]
    target: str
    glossary: Glossary | None = None


SPLIT = "split"
"""Column with the name of each row's split."""

_DRUGS = ("smiles_1", "smiles_2")
_SOLUTION = ("solute_smiles", "solvent_smiles")
_DYE = ("chromophore_smiles", "solvent_smiles")
_SIDE_EFFECTS = Glossary(
    "_side_effects", "ddi_twosides_side_effects", id_column="side_effect_id", name_column="name"
)

COLUMNS: dict[str, TaskColumns] = {
    "ddi": TaskColumns(_DRUGS, "label"),
    "ddi_biosnap": TaskColumns(_DRUGS, "label"),
    "ddi_type": TaskColumns(_DRUGS, "label"),
    "ddi_side_effects": TaskColumns(_DRUGS, "side_effect_ids", _SIDE_EFFECTS),
    "solvation": TaskColumns(_SOLUTION, "dg_solv_kcal_mol"),
    "solubility": TaskColumns(_SOLUTION, "log_s_mol_per_l"),
    "absorption": TaskColumns(_DYE, "absorption_nm"),
    "emission": TaskColumns(_DYE, "emission_nm"),
    "lifetime": TaskColumns(_DYE, "lifetime_ns"),
    "quantum_yield": TaskColumns(_DYE, "quantum_yield"),
    "caption": TaskColumns(("smiles",), "caption"),
}
"""Columns by task, for the tasks with measured answers, which can be evaluated."""
