"""Cache of processed molecules in the process that renders requests."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vllm.multimodal.inputs import MultiModalKwargsItem

from moltc_vllm.plugin.modality.molecules import EncoderInput

CAPACITY_BYTES = 250_000_000
_OVERHEAD_BYTES = 2_000  # approximate size of the Python objects of a molecule


class ProcessedMolecule(NamedTuple):
    """Output of vLLM's multimodal processor for one molecule.

    Attributes:
        mm_hash: Key of the molecule in vLLM's caches.
        item: Keyword arguments of the model.
    """

    mm_hash: str
    item: MultiModalKwargsItem


class ProcessorCache:
    """Thread-safe LRU cache of processed molecules by their encoder input.

    Args:
        capacity_bytes: Maximum size in bytes.
    """

    def __init__(self, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self.capacity_bytes = capacity_bytes
        # Least recently used first.
        self._molecules: OrderedDict[EncoderInput, ProcessedMolecule] = OrderedDict()
        self._size_bytes = 0
        self._lock = threading.Lock()

    def __contains__(self, molecule: EncoderInput) -> bool:
        return molecule in self._molecules

    def get_all(self, molecules: Sequence[EncoderInput]) -> list[ProcessedMolecule] | None:
        """Return the processed molecules, or ``None`` if any of them is not cached."""
        with self._lock:
            cached = []
            for molecule in molecules:
                if (processed := self._molecules.get(molecule)) is not None:
                    self._molecules.move_to_end(molecule)
                    cached.append(processed)
            return cached if len(cached) == len(molecules) else None

    def add(self, molecules: Iterable[tuple[EncoderInput, ProcessedMolecule]]) -> None:
        """Add processed molecules and evict the least recently used ones beyond the capacity."""
        with self._lock:
            for molecule, processed in molecules:
                if molecule in self._molecules:
                    continue
                self._molecules[molecule] = processed
                self._size_bytes += _size_bytes(molecule, processed)
            while self._size_bytes > self.capacity_bytes:
                self._size_bytes -= _size_bytes(*self._molecules.popitem(last=False))

    def clear(self) -> None:
        """Evict all molecules."""
        with self._lock:
            self._molecules.clear()
            self._size_bytes = 0


def _size_bytes(molecule: EncoderInput, processed: ProcessedMolecule) -> int:
    tensors = sum(element.data.nbytes for element in processed.item.values())
    return tensors + len(molecule.key) + _OVERHEAD_BYTES
