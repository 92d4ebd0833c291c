"""Compares the compiled reader with the plain loops on every staged molecule.

Run it as ``python benchmarks/featurize.py --check-all``.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from common import read_smiles
from rdkit import Chem

from moltc_vllm.chem import MoleculeError, canonical_key
from moltc_vllm.chem.fast.dispatch import compiled_reader
from moltc_vllm.chem.fast.self_test import difference
from moltc_vllm.chem.rdkit_log import QuietLog


def _plain_key(smiles: str) -> str:
    """The canonical key by RDKit's defaults alone."""
    key = Chem.MolToSmiles(Chem.MolFromSmiles(smiles))
    for _ in range(8):
        following = Chem.MolToSmiles(Chem.MolFromSmiles(key))
        if following == key:
            break
        key = following
    return key


def _other_writings(smiles: str, number: int) -> Iterator[str]:
    """The molecule in random order; and kekulised, every hydrogen or every bond written out."""
    mol = Chem.MolFromSmiles(smiles)
    yield Chem.MolToRandomSmilesVect(mol, 1, randomSeed=number)[0]
    Chem.Kekulize(mol, clearAromaticFlags=True)
    style = {"allHsExplicit": number % 2 == 0, "allBondsExplicit": number % 3 == 0}
    yield Chem.MolToSmiles(mol, doRandom=True, kekuleSmiles=True, **style)


def _check(batch: tuple[int, list[str]]) -> tuple[Counter[str], list[str]]:
    """Compare some molecules; in a process of its own."""
    reader = compiled_reader()
    assert reader is not None, "the compiled reader is not in use"
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    with QuietLog():
        for number, smiles in enumerate(batch[1], batch[0]):
            counts["molecules"] += 1
            for text in (smiles, *_other_writings(smiles, number)):
                counts["texts"] += 1
                found = difference(reader, text)
                wrong += [] if found is None else [found]
            try:
                key = canonical_key(smiles)
            except MoleculeError as error:
                counts[f"no key: {error.kind}"] += 1
                continue
            counts["keys"] += 1
            wrong += [] if key == _plain_key(smiles) else [f"key of {smiles!r} is {key!r}"]
    return counts, wrong


def check_all(data: Path, workers: int) -> int:
    """Compare all staged molecules; print counts and mismatches, return how many."""
    unique: dict[str, None] = {}
    for path in sorted([*data.glob("*.smi.gz"), *data.glob("*.csv.gz")]):
        unique.update(dict.fromkeys(read_smiles(path)))
    smiles = list(unique)
    batches = [(at, smiles[at : at + 1000]) for at in range(0, len(smiles), 1000)]
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    with ProcessPoolExecutor(workers, get_context("spawn")) as executor:
        for some, differences in executor.map(_check, batches):
            counts += some
            wrong += differences
            print(f"\r{counts['molecules']} of {len(smiles)}", end="", file=sys.stderr)
    print("", *wrong[:20], sep="\n", file=sys.stderr)
    print(json.dumps({**counts, "mismatches": len(wrong)}))
    return len(wrong)
