"""The table of columns: which hold a task's molecules, and which what was measured."""

from __future__ import annotations

from typing import NamedTuple


class Glossary(NamedTuple):
    """A second file that gives the names of the ids in the target column.

    It is beside the data, called after it or after the staged data set.
    """

    suffix: str
    default: str
    id_column: str
    name_column: str


class Columns(NamedTuple):
    """Column names of one task; ``molecules`` in the order of the task's roles."""

    molecules: tuple[str, ...]
    target: str
    glossary: Glossary | None = None


SPLIT = "split"

_DRUGS = ("smiles_1", "smiles_2")
_SOLUTION = ("solute_smiles", "solvent_smiles")
_DYE = ("chromophore_smiles", "solvent_smiles")
_SIDE_EFFECTS = Glossary(
    "_side_effects", "ddi_twosides_side_effects", id_column="side_effect_id", name_column="name"
)

COLUMNS: dict[str, Columns] = {
    "ddi": Columns(_DRUGS, "label"),
    "ddi_type": Columns(_DRUGS, "label"),
    "ddi_side_effects": Columns(_DRUGS, "side_effect_ids", _SIDE_EFFECTS),
    "solvation": Columns(_SOLUTION, "dg_solv_kcal_mol"),
    "solubility": Columns(_SOLUTION, "log_s_mol_per_l"),
    "absorption": Columns(_DYE, "absorption_nm"),
    "emission": Columns(_DYE, "emission_nm"),
    "lifetime": Columns(_DYE, "lifetime_ns"),
    "quantum_yield": Columns(_DYE, "quantum_yield"),
    "caption": Columns(("smiles",), "caption"),
}
"""Tasks that can be evaluated; the other ones have no measured answers."""
