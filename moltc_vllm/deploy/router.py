"""Pairs with the same first molecule go to the same replica, unless that one has too much to do."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from ray.serve.request_router import (
    FIFOMixin,
    PendingRequest,
    RequestRouter,
    RunningReplica,
)

T = TypeVar("T")


class MoleculeAffinityRouter(FIFOMixin, RequestRouter):
    """Consistent hashing with bounded loads, by the header of `moltc_vllm.engines.affinity`.

    Every replica has a place in each molecule's own order (rendezvous hashing): when one comes or
    goes, only its molecules move. A replica that has more than its share to do is passed over, and
    so is one that refuses; requests without a molecule go to the less busy of two.

    Only Serve's own HTTP proxy asks a router of ours; its HAProxy mode does not.

    Source: Thaler and Ravishankar 1998, https://doi.org/10.1109/90.663936; bounded loads:
    Mirrokni, Thorup and Zadimoghaddam 2018, https://doi.org/10.1137/1.9781611975031.39.
    """

    def initialize_state(self, balance: float = 1.25, slack: int = 8) -> None:
        """Take ``request_router_kwargs``.

        Args:
            balance: A replica may have so many times the mean number of requests in flight ...
            slack: ... or so many requests, whichever is more.
        """
        if balance < 1 or slack < 1:
            raise ValueError(f"balance {balance} and slack {slack} are at least 1")
        self._balance, self._slack = balance, slack

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Replicas in the order in which they are tried."""
        if not candidate_replicas:
            return []
        key = ""
        if pending_request is not None:
            key = pending_request.metadata.session_id
            pending_request.routing_context.should_backoff = (
                True  # if all refuse: not at once again
            )
        if not key:
            return [random.sample(candidate_replicas, min(2, len(candidate_replicas)))]
        cache = self.replica_queue_len_cache
        order = ranked(
            key,
            candidate_replicas,
            name=lambda one: one.replica_id.unique_id,
            load=lambda one: cache.get(one.replica_id) or 0,
            balance=self._balance,
            slack=self._slack,
        )
        return [[one] for one in order]


def ranked(
    key: str,
    replicas: Sequence[T],
    *,
    name: Callable[[T], str],
    load: Callable[[T], int],
    balance: float,
    slack: int,
) -> list[T]:
    """Replicas in the order of a key: first those that may take more, then the least busy ones."""
    loads = {name(one): load(one) for one in replicas}
    # With the request that is to be placed.
    most = max(slack, math.ceil(balance * (sum(loads.values()) + 1) / len(replicas)))
    ordered = sorted(replicas, key=lambda one: _weight(key, name(one)))
    free = [one for one in ordered if loads[name(one)] < most]
    full = [one for one in ordered if loads[name(one)] >= most]
    return free + sorted(full, key=lambda one: loads[name(one)])


def _weight(key: str, name: str) -> bytes:
    return hashlib.blake2b(f"{key} {name}".encode(), digest_size=8).digest()
