"""The registry of data sets: task, file, origin and license of each, and the data folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moltc_vllm.data.files import DataError

DATA_FOLDER_VARIABLE = "MOLTC_DATA"
"""Environment variable with the path of the folder of data files."""

_DRUGBANK = "DrugBank-derived: CC BY-NC 4.0"


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """Description of one data set of pairs; `moltc_vllm.data.dataset` reads its rows.

    Attributes:
        name: Key in `DATASETS` and in recipes.
        file: File name in the data folder.
        task: Name of the task, which decides columns (`moltc_vllm.data.COLUMNS`), unit and labels.
        family: Name shared by the data sets that measure the same quantity.
        reveals: Families whose answers the rows reveal, the own family first. A pair that a data
            set of one of these families holds out is not trained on. For example, the type of an
            interaction reveals that two drugs interact, but not the other way round.
        split: Origin of the split: ``published`` with the data, or ``ours``, by a hash of the
            unordered pair.
        origin: Origin of the values and the publication.
        license: License of the data as far as it is known.
    """

    name: str
    file: str
    task: str
    family: str
    reveals: tuple[str, ...]
    split: Literal["published", "ours"]
    origin: str
    license: str


DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            "drugbank86",
            "ddi_drugbank86.csv.gz",
            "ddi_type",
            "types",
            ("types", "interactions"),
            "published",
            "DrugBank's interactions in 86 types; DeepDDI, Ryu et al., PNAS 2018",
            _DRUGBANK,
        ),
        DatasetSpec(
            "chchminer",
            "ddi_chchminer.csv.gz",
            "ddi_biosnap",
            "interactions",
            ("interactions",),
            "published",
            "BIOSNAP ChCh-Miner, negatives sampled; MIRACLE, WWW 2021",
            _DRUGBANK,
        ),
        DatasetSpec(
            "zhangddi",
            "ddi_zhangddi.csv.gz",
            "ddi",
            "interactions",
            ("interactions",),
            "ours",
            "TWOSIDES interactions, unobserved pairs as negatives; Zhang et al. 2017",
            "none stated; SMILES from DrugBank, CC BY-NC 4.0",
        ),
        DatasetSpec(
            "twosides",
            "ddi_twosides.csv.gz",
            "ddi_side_effects",
            "side effects",
            ("side effects", "interactions"),
            "ours",
            "Adverse-event reports; Tatonetti et al. 2012, Zitnik et al. 2018",
            "none stated",
        ),
        DatasetSpec(
            "combisolv_exp",
            "solv_combisolv_exp.csv.gz",
            "solvation",
            "solvation",
            ("solvation",),
            "published",
            "Measured, 298 K (FreeSolv, CompSol, Abraham); Vermeire and Green 2021",
            "none stated for the data",
        ),
        DatasetSpec(
            "combisolv_qm",
            "solv_combisolv_qm.csv.gz",
            "solvation",
            "solvation",
            ("solvation",),
            "ours",
            "Computed (COSMO-RS), not measured; Vermeire and Green 2021",
            "none stated for the data",
        ),
        DatasetSpec(
            "freesolv",
            "solv_freesolv.csv.gz",
            "solvation",
            "solvation",
            ("solvation",),
            "ours",
            "Measured hydration free energies; Mobley and Guthrie 2014",
            "CC BY-NC-SA 4.0",
        ),
        DatasetSpec(
            "solubility",
            "solv_solubility_logs.csv.gz",
            "solubility",
            "solubility",
            ("solubility",),
            "ours",
            "Boobier et al., Nat. Commun. 2020",
            "CC BY 4.0 (article)",
        ),
        *(
            DatasetSpec(
                f"deep4chem_{task}",
                "chromophore_deep4chem.csv.gz",
                task,
                task,
                (task,),
                "ours",
                "Joung et al., Sci. Data 2020",
                "CC BY 4.0",
            )
            for task in ("absorption", "emission", "lifetime", "quantum_yield")
        ),
    )
}

COMPUTED_DATASETS = frozenset({"combisolv_qm"})
"""Names of the data sets of computed values: errors against them are not errors of measurements."""


def get_dataset_spec(name: str) -> DatasetSpec:
    """Look up a data set by its name.

    Raises:
        DataError: If there is no data set with this name.
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; there are {', '.join(DATASETS)}")
    return DATASETS[name]


def data_folder(folder: Path | None = None) -> Path:
    """Return the folder of the data files.

    Args:
        folder: Folder to use; default: the value of ``MOLTC_DATA``.

    Raises:
        DataError: If no folder is given, or it does not exist.
    """
    if folder is None:
        value = os.environ.get(DATA_FOLDER_VARIABLE)
        if not value:
            raise DataError(
                f"no folder of data files is given: set {DATA_FOLDER_VARIABLE}, or --data"
            )
        folder = Path(value)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of data files")
    return folder
