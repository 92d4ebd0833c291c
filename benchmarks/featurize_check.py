"""Compare fast with slow implementations on every molecule of the data files.

The compiled reader is compared with the Python loops, canonical keys with RDKit's defaults, and
molecules that need no cleanup by the scan of their text with the result of the cleanup.

Run as ``python benchmarks/featurize.py --check-all``.
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

from moltc_vllm.chem import (
    MAX_ATOMS,
    MoleculeError,
    MoleculeLimits,
    Standardized,
    canonical_key,
)
from moltc_vllm.chem.fast.dispatch import compiled_reader
from moltc_vllm.chem.fast.self_test import find_difference
from moltc_vllm.chem.rdkit_log import QuietLog
from moltc_vllm.chem.standardize import _standardize, needs_no_cleanup

_MAX_CANONICALIZATIONS = 8
_LIMITS = MoleculeLimits(max_atoms=MAX_ATOMS, max_characters=1 << 20)
_SHOWN_MISMATCHES = 20


def _default_key(smiles: str) -> str:
    """Compute the canonical key with RDKit's defaults alone."""
    key = Chem.MolToSmiles(Chem.MolFromSmiles(smiles))
    for _ in range(_MAX_CANONICALIZATIONS):
        next_key = Chem.MolToSmiles(Chem.MolFromSmiles(key))
        if next_key == key:
            break
        key = next_key
    return key


def _other_spellings(smiles: str, index: int) -> Iterator[str]:
    """Write the molecule in random order, and kekulized with explicit hydrogens or bonds."""
    mol = Chem.MolFromSmiles(smiles)
    yield Chem.MolToRandomSmilesVect(mol, 1, randomSeed=index)[0]
    Chem.Kekulize(mol, clearAromaticFlags=True)
    style = {"allHsExplicit": index % 2 == 0, "allBondsExplicit": index % 3 == 0}
    yield Chem.MolToSmiles(mol, doRandom=True, kekuleSmiles=True, **style)


def _changes_by_standardization(text: str) -> list[str]:
    """Standardize a text that the scan lets pass, without the scan; describe what changed."""
    results = {}
    for mode in ("cleanup", "parent"):
        try:
            results[mode] = _standardize.__wrapped__(text, mode, _LIMITS)
        except MoleculeError as error:
            results[mode] = error
    return [
        f"{mode} of {text!r} is {result}"
        for mode, result in results.items()
        if result != Standardized(text)
    ]


def _check_batch(batch: tuple[int, list[str]]) -> tuple[Counter[str], list[str]]:
    """Compare a batch of molecules in a worker process.

    Args:
        batch: Index of the first molecule, and the SMILES.

    Returns:
        Counts by name, and descriptions of the mismatches.
    """
    reader = compiled_reader()
    assert reader is not None, "the compiled reader is not in use"
    first_index, molecules = batch
    counts: Counter[str] = Counter()
    mismatches: list[str] = []
    with QuietLog():
        for index, smiles in enumerate(molecules, first_index):
            counts["molecules"] += 1
            for text in (smiles, *_other_spellings(smiles, index)):
                counts["texts"] += 1
                if needs_no_cleanup(text):
                    counts["need no cleanup"] += 1
                    mismatches += _changes_by_standardization(text)
                difference = find_difference(reader, text)
                mismatches += [] if difference is None else [difference]
            try:
                key = canonical_key(smiles)
            except MoleculeError as error:
                counts[f"no key: {error.kind}"] += 1
                continue
            counts["keys"] += 1
            mismatches += [] if key == _default_key(smiles) else [f"key of {smiles!r} is {key!r}"]
    return counts, mismatches


def check_all(data: Path, workers: int) -> int:
    """Compare all molecules of the data files and print counts and mismatches.

    Args:
        data: Folder of the data files.
        workers: Number of processes.

    Returns:
        Number of mismatches.
    """
    unique: dict[str, None] = {}
    for path in sorted([*data.glob("*.smi.gz"), *data.glob("*.csv.gz")]):
        unique.update(dict.fromkeys(read_smiles(path)))
    smiles = list(unique)
    batches = [(start, smiles[start : start + 1000]) for start in range(0, len(smiles), 1000)]
    counts: Counter[str] = Counter()
    mismatches: list[str] = []
    with ProcessPoolExecutor(workers, get_context("spawn")) as executor:
        for batch_counts, batch_mismatches in executor.map(_check_batch, batches):
            counts += batch_counts
            mismatches += batch_mismatches
            print(f"\r{counts['molecules']} of {len(smiles)}", end="", file=sys.stderr)
    print("", *mismatches[:_SHOWN_MISMATCHES], sep="\n", file=sys.stderr)
    print(json.dumps({**counts, "mismatches": len(mismatches)}))
    return len(mismatches)
