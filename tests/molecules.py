"""Real molecules for tests."""

import csv
import gzip
import itertools
import os
from pathlib import Path

from moltc_vllm.chem import MolGraph, featurize, parse_smiles

DRUGS = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "caffeine": "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "diazepam": "CN1C(=O)CN=C(c2ccccc2)c2cc(Cl)ccc21",
    "dopamine": "NCCc1ccc(O)c(O)c1",
    "ibuprofen": "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "lidocaine": "CCN(CC)CC(=O)Nc1c(C)cccc1C",
    "metformin": "CN(C)C(=N)NC(N)=N",
    "metoprolol": "COCCc1ccc(OCC(O)CNC(C)C)cc1",
    "morphine": "CN1CC[C@]23c4c5ccc(O)c4O[C@H]2[C@@H](O)C=C[C@H]3[C@H]1C5",
    "nicotine": "CN1CCC[C@H]1c1cccnc1",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "penicillin G": "CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(=O)O",
    "sildenafil": "CCCc1nn(C)c2c1nc([nH]c2=O)-c1cc(ccc1OCC)S(=O)(=O)N1CCN(C)CC1",
    "sodium valproate": "CCCC(CCC)C(=O)[O-].[Na+]",
    "testosterone": "C[C@]12CC[C@H]3[C@@H](CCC4=CC(=O)CC[C@]34C)[C@@H]1CC[C@@H]2O",
    "warfarin": "CC(=O)CC(c1ccccc1)C1=C(O)c2ccccc2OC1=O",
}


def data_folder() -> Path:
    """Return the folder of the staged datasets, which may not exist."""
    return Path(os.environ.get("MOLTC_DATA", Path(__file__).parents[2] / "shared" / "data"))


def drug_pairs(count: int) -> list[tuple[str, str]]:
    """Return pairs of drugs: of DrugBank if the staged data exists, otherwise of `DRUGS`."""
    path = data_folder() / "ddi_drugbank86.csv.gz"
    if not path.exists():
        return list(itertools.permutations(DRUGS.values(), 2))[:count]
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    step = len(rows) // count
    return [(row["smiles_1"], row["smiles_2"]) for row in rows[::step][:count]]


def real_graphs(count: int) -> list[MolGraph]:
    """Return molecule graphs: of ZINC if the staged data exists, otherwise of `DRUGS`."""
    path = data_folder() / "screen_zinc250k_29k.smi.gz"
    if not path.exists():
        smiles = list(itertools.islice(itertools.cycle(DRUGS.values()), count))
    else:
        with gzip.open(path, "rt") as file:
            smiles = [line.split()[0] for line in itertools.islice(file, count)]
    return [featurize(parse_smiles(text)) for text in smiles]
