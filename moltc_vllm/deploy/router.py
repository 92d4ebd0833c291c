"""Request router that sends pairs with the same first molecule to the same replica."""

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

    Each molecule ranks the replicas in its own order (rendezvous hashing), so that when a replica
    is added or removed only its own molecules move. Replicas over their load limit and replicas
    that reject the request are skipped. A request without a molecule goes to the less loaded of two
    random replicas.

    Serve's own HTTP proxy uses custom routers; Serve's HAProxy mode ignores them.

    Source: Thaler and Ravishankar 1998, https://doi.org/10.1109/90.663936; bounded loads:
    Mirrokni, Thorup and Zadimoghaddam 2018, https://doi.org/10.1137/1.9781611975031.39.
    """

    def initialize_state(self, balance: float = 1.25, slack: int = 8) -> None:
        """Store the ``request_router_kwargs`` of the configuration.

        A replica's load limit is the larger one of the two bounds.

        Args:
            balance: Load limit as a multiple of the mean number of requests in flight.
            slack: Load limit as a number of requests in flight.

        Raises:
            ValueError: If a bound is below 1.
        """
        if balance < 1 or slack < 1:
            raise ValueError(
                f"request_router_kwargs: balance {balance} and slack {slack} have to be at least 1"
            )
        self._balance, self._slack = balance, slack

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return groups of replicas in the order in which Serve tries them."""
        if not candidate_replicas:
            return []
        key = ""
        if pending_request is not None:
            key = pending_request.metadata.session_id
            # If all replicas reject the request, Serve waits before it tries them again.
            pending_request.routing_context.should_backoff = True
        if not key:
            return [random.sample(candidate_replicas, min(2, len(candidate_replicas)))]
        queue_lengths = self.replica_queue_len_cache
        ranked = rank_replicas(
            key,
            candidate_replicas,
            name=lambda replica: replica.replica_id.unique_id,
            load=lambda replica: queue_lengths.get(replica.replica_id) or 0,
            balance=self._balance,
            slack=self._slack,
        )
        return [[replica] for replica in ranked]


def rank_replicas(
    key: str,
    replicas: Sequence[T],
    *,
    name: Callable[[T], str],
    load: Callable[[T], int],
    balance: float,
    slack: int,
) -> list[T]:
    """Rank replicas for a key.

    Args:
        key: Affinity key of the first molecule.
        replicas: Replicas to rank; at least one.
        name: Function that returns a replica's unique name.
        load: Function that returns a replica's number of requests in flight.
        balance: Load limit as a multiple of the mean load.
        slack: Load limit as a number of requests.

    Returns:
        Replicas below the load limit in the key's order, then the others by increasing load.
    """
    loads = {name(replica): load(replica) for replica in replicas}
    total = sum(loads.values()) + 1  # includes the request to be placed
    limit = max(slack, math.ceil(balance * total / len(replicas)))
    ordered = sorted(replicas, key=lambda replica: _rendezvous_weight(key, name(replica)))
    available = [replica for replica in ordered if loads[name(replica)] < limit]
    overloaded = [replica for replica in ordered if loads[name(replica)] >= limit]
    return available + sorted(overloaded, key=lambda replica: loads[name(replica)])


def _rendezvous_weight(key: str, name: str) -> bytes:
    return hashlib.blake2b(f"{key} {name}".encode(), digest_size=8).digest()
