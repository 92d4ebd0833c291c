"""Index of the labelled training molecules: how near a molecule is to them.

``familiarity.safetensors`` of a checkpoint folder holds, for each molecule, a hash of its canonical
key, a bit for each task with labels of it, and its Morgan fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from moltc_vllm.chem import MoleculeError, canonical_key
from moltc_vllm.chem.fingerprint import WORDS, FingerprintTable, Words, fingerprint, max_similarity
from moltc_vllm.models.errors import CheckpointError
from moltc_vllm.tasks.answer import Familiarity
from moltc_vllm.utils.atomic_files import new_file

FAMILIARITY_FILE = "familiarity.safetensors"

SIMILAR = 0.7
"""Tanimoto similarity from which a molecule is similar to a training molecule.

Above it the errors of held-back dyes are half of those below (docs/concepts/confidence.md).
"""

FAMILIARITIES: tuple[Familiarity, ...] = ("known", "similar", "unlike")
"""Classes from near to far."""

_FORMAT = "1"
_MAX_FINGERPRINTS = 28_000  # 140 bytes each, below 4 MB
_MAX_TASKS = 32
_CACHE_SIZE = 1 << 17

# vLLM reads all safetensors files of a folder as weights; the prefix lets the model skip these.
WEIGHT_PREFIX = "familiarity."


class FamiliarityIndex:
    """Labelled training molecules of each task, searched by key and by similarity.

    Args:
        tasks: Names of the tasks.
        hashes: ``[N]`` uint64, hashes of the molecules' keys, ascending.
        masks: ``[N]`` uint32; bit ``i`` is set if the molecule has a label of task ``i``.
        words: ``[M, WORDS]`` uint64, fingerprints of the first M molecules.
        similar: Smallest similarity of the class ``similar``.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        hashes: NDArray[np.uint64],
        masks: NDArray[np.uint32],
        words: Words,
        similar: float = SIMILAR,
    ) -> None:
        self.tasks = tuple(tasks)
        self.similar = similar
        self._hashes, self._masks, self._words = hashes, masks, words
        self._tables: dict[str, FingerprintTable] = {}
        self._cached_similarity = lru_cache(maxsize=_CACHE_SIZE)(self._similarity)
        self._cached_class = lru_cache(maxsize=_CACHE_SIZE)(self._classify)

    @classmethod
    def build(
        cls, molecules: Mapping[str, Iterable[str]], similar: float = SIMILAR
    ) -> FamiliarityIndex:
        """Build the index of molecules by task; molecules that cannot be read are left out.

        Of more than 28,000 molecules only a random sample has a fingerprint, so that the file stays
        below 4 MB; the others are still recognized exactly.

        Args:
            molecules: Keys of the labelled training molecules by task, as the encoder's keys are
                made from them; any SMILES is converted to its canonical key.
            similar: Smallest similarity of the class ``similar``.

        Raises:
            ValueError: If there are more than 32 tasks.
        """
        if len(molecules) > _MAX_TASKS:
            raise ValueError(f"an index has at most {_MAX_TASKS} tasks, not {len(molecules)}")
        masks: dict[str, int] = {}
        for bit, texts in enumerate(molecules.values()):
            for text in dict.fromkeys(texts):
                try:
                    key = canonical_key(text)
                except MoleculeError:
                    continue
                masks[key] = masks.get(key, 0) | 1 << bit
        # The order of hashes is random, so the first rows are a random sample.
        keys = sorted(masks, key=_hash)
        prints = [fingerprint(key) for key in keys[:_MAX_FINGERPRINTS]]
        return cls(
            tuple(molecules),
            np.array([_hash(key) for key in keys], np.uint64),
            np.array([masks[key] for key in keys], np.uint32),
            np.array(prints, np.uint64).reshape(len(prints), WORDS),
            similar,
        )

    def save(self, folder: Path) -> None:
        """Write the index into a checkpoint folder."""
        arrays = {
            "hashes": self._hashes.view(np.int64),
            "masks": self._masks.view(np.int32),
            "fingerprints": self._words.astype("<u8").view(np.uint8),
        }
        metadata = {
            "moltc_familiarity": _FORMAT,
            "tasks": json.dumps(self.tasks),
            "similar": repr(self.similar),
        }
        with new_file(folder / FAMILIARITY_FILE) as partial:
            save_file(
                {f"{WEIGHT_PREFIX}{name}": array for name, array in arrays.items()},
                partial,
                metadata,
            )

    def __len__(self) -> int:
        """Return the number of molecules."""
        return len(self._hashes)

    def classify(self, task: str, key: str) -> Familiarity:
        """Return the familiarity of a molecule for a task; the result is cached.

        Args:
            task: Name of a task in `tasks`.
            key: Canonical key of the molecule.
        """
        return self._cached_class(task, key)

    def similarity(self, task: str, key: str) -> float:
        """Return the Tanimoto similarity to the nearest molecule of a task; it is cached.

        A different molecule may have similarity 1: fingerprints ignore stereochemistry.

        Args:
            task: Name of a task in `tasks`.
            key: Canonical key of the molecule.
        """
        return self._cached_similarity(task, key)

    def _classify(self, task: str, key: str) -> Familiarity:
        if self._is_known(task, key):
            return "known"
        return "similar" if self.similarity(task, key) >= self.similar else "unlike"

    def _is_known(self, task: str, key: str) -> bool:
        value = np.uint64(_hash(key))
        row = int(np.searchsorted(self._hashes, value))
        if row == len(self._hashes) or self._hashes[row] != value:
            return False
        return bool(int(self._masks[row]) >> self.tasks.index(task) & 1)

    def _similarity(self, task: str, key: str) -> float:
        table = self._tables.get(task)
        if table is None:
            bits = self._masks[: len(self._words)] >> np.uint32(self.tasks.index(task))
            table = self._tables[task] = FingerprintTable.of(self._words[(bits & 1) == 1])
        return max_similarity(table, fingerprint(key))


def load_familiarity(folder: Path) -> FamiliarityIndex | None:
    """Read the index of a checkpoint folder; ``None`` without the file.

    Raises:
        CheckpointError: If the file cannot be read or has an unknown format.
    """
    path = folder / FAMILIARITY_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("moltc_familiarity") != _FORMAT:
                raise CheckpointError(f"{path} has an unknown format: use a newer version")
            hashes, masks, prints = (
                file.get_tensor(f"{WEIGHT_PREFIX}{name}")
                for name in ("hashes", "masks", "fingerprints")
            )
            return FamiliarityIndex(
                json.loads(metadata["tasks"]),
                hashes.view(np.uint64),
                masks.view(np.uint32),
                np.ascontiguousarray(prints).view("<u8").astype(np.uint64),
                float(metadata["similar"]),
            )
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not an index of molecules: {error}") from error


def least_familiar(familiarities: Iterable[Familiarity]) -> Familiarity:
    """Return the class of the least familiar of several molecules."""
    return max(familiarities, key=FAMILIARITIES.index)


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
