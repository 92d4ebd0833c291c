"""Routing by molecule, with bounded loads."""

import asyncio
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltc_vllm.deploy.router import MoleculeAffinityRouter, rank_replicas

KEYS = [f"key-{index}" for index in range(400)]


def rank(key, loads, balance=1.25, slack=8):
    return rank_replicas(
        key, list(loads), name=str, load=lambda name: loads[name], balance=balance, slack=slack
    )


def test_rank_does_not_depend_on_order_of_replicas():
    for key in KEYS:
        assert rank(key, dict.fromkeys("abc", 0)) == rank(key, dict.fromkeys("cab", 0))


def test_keys_are_spread_over_replicas():
    counts = Counter(rank(key, dict.fromkeys("abcd", 0))[0] for key in KEYS)
    assert min(counts.values()) > 60


def test_removed_replica_moves_only_its_own_keys():
    for key in KEYS:
        first, second, *_ = rank(key, dict.fromkeys("abcd", 0))
        without_first = dict.fromkeys(set("abcd") - {first}, 0)
        assert rank(key, without_first)[0] == second
        assert rank(key, dict.fromkeys(set("abcd") - {second}, 0))[0] == first


def test_requests_within_slack_are_not_moved():
    for key in KEYS:
        preferred = rank(key, {"a": 0, "b": 0})[0]
        assert rank(key, {"a": 0, "b": 0, preferred: 7})[0] == preferred
        assert rank(key, {"a": 0, "b": 0, preferred: 8})[0] != preferred


@given(
    st.lists(st.integers(0, 200), min_size=1, max_size=8),
    st.text(max_size=5),
    st.floats(1, 3),
    st.integers(1, 20),
)
def test_load_of_first_replica_is_bounded(loads, key, balance, slack):
    named_loads = {str(index): load for index, load in enumerate(loads)}
    ranked = rank(key, named_loads, balance, slack)
    assert sorted(ranked) == sorted(named_loads)  # the rank has every replica
    limit = max(slack, balance * (sum(loads) + 1) / len(loads) + 1)
    assert named_loads[ranked[0]] < limit


class FakeServeRouter(MoleculeAffinityRouter):
    """Router with given queue lengths and without the rest of Serve."""

    def __init__(self, loads, **options):
        self.loads = loads
        self.initialize_state(**options)

    @property
    def replica_queue_len_cache(self):
        return SimpleNamespace(get=lambda replica_id: self.loads[replica_id.unique_id])

    def groups(self, key):
        """Names of the replicas that the router chooses for a key."""
        replicas = [
            SimpleNamespace(replica_id=SimpleNamespace(unique_id=name)) for name in self.loads
        ]
        pending = SimpleNamespace(
            metadata=SimpleNamespace(session_id=key),
            routing_context=SimpleNamespace(should_backoff=False),
        )
        groups = asyncio.run(self.choose_replicas(replicas, pending))
        assert pending.routing_context.should_backoff is bool(replicas)
        return [[replica.replica_id.unique_id for replica in group] for group in groups]


def test_router_tries_replicas_one_by_one():
    (first,), (second,), (third,) = FakeServeRouter({"a": None, "b": None, "c": 0}).groups("x")
    assert FakeServeRouter({"a": 1, "b": 1, "c": 1}).groups("x") == [[first], [second], [third]]
    groups = FakeServeRouter({"a": 1, "b": 1, "c": 1, first: 50}).groups("x")
    assert groups[0] == [second]
    assert groups[-1] == [first]


def test_router_offers_two_replicas_without_molecule():
    (pair,) = FakeServeRouter({"a": 0, "b": 0, "c": 0}).groups("")
    assert len(set(pair)) == 2
    assert FakeServeRouter({"a": 0}).groups("") == [["a"]]
    assert FakeServeRouter({}).groups("x") == []


@pytest.mark.parametrize("options", [{"balance": 0.9}, {"slack": 0}])
def test_router_refuses_bounds_below_one(options):
    with pytest.raises(ValueError, match="at least 1"):
        FakeServeRouter({}, **options)
