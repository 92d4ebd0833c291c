"""What vLLM's processor made of molecules: those that were used last, for all threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vllm.multimodal.inputs import MultiModalKwargsItem

from moltc_vllm.plugin.modality.molecules import EncoderInput

CAPACITY_BYTES = 250_000_000
_OVERHEAD_BYTES = 2_000  # of the objects of one molecule


class Processed(NamedTuple):
    """A molecule.

    Attributes:
        name: In vLLM's caches.
        item: As the model takes it.
    """

    name: str
    item: MultiModalKwargsItem


class ProcessorCache:
    """Molecules by what their encoding depends on.

    Args:
        capacity_bytes: How much is kept.
    """

    def __init__(self, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self.capacity_bytes = capacity_bytes
        self._molecules: OrderedDict[EncoderInput, Processed] = OrderedDict()  # oldest use first
        self._bytes = 0
        self._lock = threading.Lock()

    def __contains__(self, molecule: EncoderInput) -> bool:
        return molecule in self._molecules

    def find(self, molecules: Sequence[EncoderInput]) -> list[Processed] | None:
        """These molecules, if all are known."""
        with self._lock:
            found = []
            for molecule in molecules:
                if (one := self._molecules.get(molecule)) is not None:
                    self._molecules.move_to_end(molecule)
                    found.append(one)
            return found if len(found) == len(molecules) else None

    def keep(self, molecules: Iterable[tuple[EncoderInput, Processed]]) -> None:
        """Remember them, and forget what was used longest ago."""
        with self._lock:
            for molecule, processed in molecules:
                if molecule in self._molecules:
                    continue
                self._molecules[molecule] = processed
                self._bytes += _size(molecule, processed)
            while self._bytes > self.capacity_bytes:
                self._bytes -= _size(*self._molecules.popitem(last=False))

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._molecules.clear()
            self._bytes = 0


def _size(molecule: EncoderInput, processed: Processed) -> int:
    tensors = sum(element.data.nbytes for element in processed.item.values())
    return tensors + len(molecule.key) + _OVERHEAD_BYTES
