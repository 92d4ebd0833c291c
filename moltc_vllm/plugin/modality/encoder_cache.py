"""Encoded molecules, kept before the projector.

vLLM's encoder cache keeps what the model returns, which is *projected*: with a projector per role
or task the same molecule would be read again for each. Here it is read once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Identity = tuple[int, ...]
"""A molecule's name inside the worker: the 128 bits of its key's hash, as two integers."""


class EncoderCache:
    """The molecules read last, ``[num_queries, hidden]`` each, in one tensor on the device.

    Args:
        capacity_bytes: Size of that tensor; at least one molecule is kept.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._pool: Tensor | None = None
        self._slots: OrderedDict[Identity, int] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._slots)

    def clear(self) -> None:
        """Forget everything: the encoder has other weights now."""
        self._slots.clear()

    def fetch(self, molecules: Sequence[Identity], encode: Callable[[list[int]], Tensor]) -> Tensor:
        """Give the tokens of a batch of molecules, and encode those that are not here.

        Args:
            molecules: Names of the batch's molecules; one may stand there more than once.
            encode: Encodes the molecules at these places of the batch, ``[n, num_queries,
                hidden]``; called once, or not at all if all are known.

        Returns:
            ``[len(molecules), num_queries, hidden]``.
        """
        new: dict[Identity, int] = {}
        for place, molecule in enumerate(molecules):
            if molecule not in self._slots:
                new.setdefault(molecule, place)
        fresh = encode(list(new.values())) if new else None
        if fresh is not None and len(new) == len(molecules):
            out = fresh
        else:
            row = {molecule: row for row, molecule in enumerate(new)}
            out = self._joined(fresh, row, molecules)
        for molecule in molecules:
            if molecule in self._slots:
                self._slots.move_to_end(molecule)
        if fresh is not None:
            self._keep(list(new), fresh)
        return out

    def _joined(
        self, fresh: Tensor | None, row: dict[Identity, int], molecules: Sequence[Identity]
    ) -> Tensor:
        """Rows of the pool and of what was encoded just now, in the batch's order."""
        kept = [self._slots[molecule] for molecule in molecules if molecule not in row]
        parts = [] if fresh is None else [fresh]
        if kept:
            assert self._pool is not None
            parts.append(self._pool[torch.tensor(kept, device=self._pool.device)])
        count = len(row)
        order = []
        for molecule in molecules:
            if molecule in row:
                order.append(row[molecule])
            else:
                order.append(count)
                count += 1
        joined = torch.cat(parts)
        return joined[torch.tensor(order, device=joined.device)]

    def _keep(self, molecules: list[Identity], tokens: Tensor) -> None:
        if self._pool is None:
            each = tokens[0].nbytes
            capacity = max(1, self.capacity_bytes // each)
            self._pool = tokens.new_empty(capacity, *tokens.shape[1:])
        capacity = self._pool.shape[0]
        molecules, tokens = molecules[-capacity:], tokens[-capacity:]
        slots = []
        for molecule in molecules:
            full = len(self._slots) == capacity
            slot = self._slots.popitem(last=False)[1] if full else len(self._slots)
            self._slots[molecule] = slot
            slots.append(slot)
        self._pool[torch.tensor(slots, device=tokens.device)] = tokens
