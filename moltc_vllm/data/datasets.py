"""The table of data sets: what is known of each, and where its files are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moltc_vllm.data.files import DataError

VARIABLE = "MOLTC_DATA"
"""Environment variable that names the folder of the data files."""

_DRUGBANK = "DrugBank-derived: CC BY-NC 4.0"


@dataclass(frozen=True, slots=True)
class Source:
    """One data set of pairs.

    Attributes:
        name: Key in the table and in recipes.
        file: In the data folder.
        task: Whose columns, unit and labels it has (`moltc_vllm.data.COLUMNS`).
        family: Data sets about the same thing.
        reveals: The families whose answers its rows tell, its own first. A pair that one of those
            holds back for choosing or testing is not trained on: that two drugs interact in a
            certain way tells that they interact, but not the other way round.
        split: Who made it: ``published`` with the data, or ``ours``, by a hash of the unordered
            pair.
        origin: Who measured or computed it, and where it was published.
        licence: As far as it is known.
    """

    name: str
    file: str
    task: str
    family: str
    reveals: tuple[str, ...]
    split: Literal["published", "ours"]
    origin: str
    licence: str


DATASETS: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            "drugbank86",
            "ddi_drugbank86.csv.gz",
            "ddi_type",
            "types",
            ("types", "interactions"),
            "published",
            "DrugBank's interactions in 86 types; DeepDDI, Ryu et al., PNAS 2018",
            _DRUGBANK,
        ),
        Source(
            "chchminer",
            "ddi_chchminer.csv.gz",
            "ddi",
            "interactions",
            ("interactions",),
            "published",
            "BIOSNAP ChCh-Miner, negatives sampled; MIRACLE, WWW 2021",
            _DRUGBANK,
        ),
        Source(
            "zhangddi",
            "ddi_zhangddi.csv.gz",
            "ddi",
            "interactions",
            ("interactions",),
            "ours",
            "TWOSIDES interactions, unobserved pairs as negatives; Zhang et al. 2017",
            "none stated; SMILES from DrugBank, CC BY-NC 4.0",
        ),
        Source(
            "twosides",
            "ddi_twosides.csv.gz",
            "ddi_side_effects",
            "side effects",
            ("side effects", "interactions"),
            "ours",
            "Adverse-event reports; Tatonetti et al. 2012, Zitnik et al. 2018",
            "none stated",
        ),
        Source(
            "combisolv_exp",
            "solv_combisolv_exp.csv.gz",
            "solvation",
            "solvation",
            ("solvation",),
            "published",
            "Measured, 298 K (FreeSolv, CompSol, Abraham); Vermeire and Green 2021",
            "none stated for the data",
        ),
        Source(
            "combisolv_qm",
            "solv_combisolv_qm.csv.gz",
            "solvation",
            "solvation",
            ("solvation",),
            "ours",
            "Computed (COSMO-RS), not measured; Vermeire and Green 2021",
            "none stated for the data",
        ),
        Source(
            "freesolv",
            "solv_freesolv.csv.gz",
            "solvation",
            "solvation",
            ("solvation",),
            "ours",
            "Measured hydration free energies; Mobley and Guthrie 2014",
            "CC BY-NC-SA 4.0",
        ),
        Source(
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
            Source(
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


def get_source(name: str) -> Source:
    """The data set of a name.

    Raises:
        DataError: If there is none.
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; there are {', '.join(DATASETS)}")
    return DATASETS[name]


def data_folder(folder: Path | None = None) -> Path:
    """Where the data files are: the given folder, or ``MOLTC_DATA``.

    Raises:
        DataError: If there is no such folder.
    """
    if folder is None:
        told = os.environ.get(VARIABLE)
        if not told:
            raise DataError(f"where the data files are is not known: set {VARIABLE}, or --data")
        folder = Path(told)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of data files")
    return folder
