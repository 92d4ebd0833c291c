"""Cache of encoded molecules in front of the projectors, on the worker's device.

vLLM's own encoder cache holds projected tokens. With a projector per role or task, it would need
the same molecule encoded once for each. This cache holds the tokens in front of the projectors, so
each molecule is encoded only once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MoleculeId = tuple[int, ...]
"""128-bit hash of a molecule's key, as two 64-bit integers."""


class EncoderCache:
    """LRU cache of molecule tokens, ``[num_queries, hidden]`` each, in one tensor on the device.

    Args:
        capacity_bytes: Size of the tensor in bytes; it always holds at least one molecule.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._pool: Tensor | None = None  # [capacity, num_queries, hidden]
        self._slots: OrderedDict[MoleculeId, int] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._slots)

    def clear(self) -> None:
        """Evict all molecules, e.g. because the encoder's weights have changed."""
        self._slots.clear()

    def get_or_encode(
        self, molecules: Sequence[MoleculeId], encode: Callable[[list[int]], Tensor]
    ) -> Tensor:
        """Return the tokens of a batch of molecules, and encode those that are not cached.

        Args:
            molecules: Ids of the batch's molecules, possibly with repetitions.
            encode: Function that encodes the molecules at the given indices of the batch to
                ``[n, num_queries, hidden]``. It is called at most once.

        Returns:
            ``[len(molecules), num_queries, hidden]``.
        """
        missing: dict[MoleculeId, int] = {}
        for index, molecule in enumerate(molecules):
            if molecule not in self._slots:
                missing.setdefault(molecule, index)
        encoded = encode(list(missing.values())) if missing else None
        if encoded is not None and len(missing) == len(molecules):
            tokens = encoded
        else:
            tokens = self._gather(molecules, list(missing), encoded)
        for molecule in molecules:
            if molecule in self._slots:
                self._slots.move_to_end(molecule)
        if encoded is not None:
            self._store(list(missing), encoded)
        return tokens

    def _gather(
        self,
        molecules: Sequence[MoleculeId],
        encoded_molecules: Sequence[MoleculeId],
        encoded: Tensor | None,
    ) -> Tensor:
        """Gather rows of ``encoded`` and of the pool in the batch's order."""
        row_of = {molecule: row for row, molecule in enumerate(encoded_molecules)}
        cached_slots = [self._slots[molecule] for molecule in molecules if molecule not in row_of]
        parts = [] if encoded is None else [encoded]
        if cached_slots:
            assert self._pool is not None
            parts.append(self._pool[torch.tensor(cached_slots, device=self._pool.device)])
        next_cached_row = len(row_of)
        rows = []
        for molecule in molecules:
            if molecule in row_of:
                rows.append(row_of[molecule])
            else:
                rows.append(next_cached_row)
                next_cached_row += 1
        joined = torch.cat(parts)
        return joined[torch.tensor(rows, device=joined.device)]

    def _store(self, molecules: list[MoleculeId], tokens: Tensor) -> None:
        """Store new molecules in free slots, or in those of the least recently used."""
        if self._pool is None:
            capacity = max(1, self.capacity_bytes // tokens[0].nbytes)
            self._pool = tokens.new_empty(capacity, *tokens.shape[1:])
        capacity = self._pool.shape[0]
        molecules, tokens = molecules[-capacity:], tokens[-capacity:]
        slots = []
        for molecule in molecules:
            is_full = len(self._slots) == capacity
            slot = self._slots.popitem(last=False)[1] if is_full else len(self._slots)
            self._slots[molecule] = slot
            slots.append(slot)
        self._pool[torch.tensor(slots, device=tokens.device)] = tokens
