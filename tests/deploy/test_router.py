"""Where requests go: by molecule, unless a replica has too much to do."""

import asyncio
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltc_vllm.deploy.router import MoleculeAffinityRouter, ranked

KEYS = [f"key-{number}" for number in range(400)]


def order(key, loads, balance=1.25, slack=8):
    return ranked(
        key, list(loads), name=str, load=lambda one: loads[one], balance=balance, slack=slack
    )


def test_the_same_molecule_goes_to_the_same_replica():
    for key in KEYS:
        assert order(key, dict.fromkeys("abc", 0)) == order(key, dict.fromkeys("cab", 0))


def test_molecules_are_spread():
    counts = Counter(order(key, dict.fromkeys("abcd", 0))[0] for key in KEYS)
    assert min(counts.values()) > 60


def test_when_a_replica_goes_only_its_molecules_move():
    for key in KEYS:
        first, second, *_ = order(key, dict.fromkeys("abcd", 0))
        left = dict.fromkeys(set("abcd") - {first}, 0)
        assert order(key, left)[0] == second
        assert order(key, dict.fromkeys(set("abcd") - {second}, 0))[0] == first


def test_few_requests_are_never_moved():
    for key in KEYS:
        busy = order(key, {"a": 0, "b": 0})[0]
        assert order(key, {"a": 0, "b": 0, busy: 7})[0] == busy
        assert order(key, {"a": 0, "b": 0, busy: 8})[0] != busy


@given(
    st.lists(st.integers(0, 200), min_size=1, max_size=8),
    st.text(max_size=5),
    st.floats(1, 3),
    st.integers(1, 20),
)
def test_loads_are_bounded(loads, key, balance, slack):
    named = {str(number): load for number, load in enumerate(loads)}
    found = order(key, named, balance, slack)
    assert sorted(found) == sorted(named)  # each is tried in the end
    most = max(slack, balance * (sum(loads) + 1) / len(loads) + 1)
    assert named[found[0]] < most


class Router(MoleculeAffinityRouter):
    """Without Serve around it."""

    def __init__(self, loads, **options):
        self.loads = loads
        self.initialize_state(**options)

    @property
    def replica_queue_len_cache(self):
        return SimpleNamespace(get=lambda one: self.loads[one.unique_id])

    def ranks(self, key):
        replicas = [
            SimpleNamespace(replica_id=SimpleNamespace(unique_id=name)) for name in self.loads
        ]
        pending = SimpleNamespace(
            metadata=SimpleNamespace(session_id=key),
            routing_context=SimpleNamespace(should_backoff=False),
        )
        found = asyncio.run(self.choose_replicas(replicas, pending))
        assert pending.routing_context.should_backoff is bool(replicas)
        return [[one.replica_id.unique_id for one in rank] for rank in found]


def test_replicas_are_tried_one_after_the_other():
    (first,), (second,), (third,) = Router({"a": None, "b": None, "c": 0}).ranks("x")
    assert Router({"a": 1, "b": 1, "c": 1}).ranks("x") == [[first], [second], [third]]
    busy = Router({"a": 1, "b": 1, "c": 1, first: 50}).ranks("x")
    assert busy[0] == [second]
    assert busy[-1] == [first]


def test_without_a_molecule_the_less_busy_of_two_gets_it():
    (two,) = Router({"a": 0, "b": 0, "c": 0}).ranks("")
    assert len(set(two)) == 2
    assert Router({"a": 0}).ranks("") == [["a"]]
    assert Router({}).ranks("x") == []


@pytest.mark.parametrize("options", [{"balance": 0.9}, {"slack": 0}])
def test_bounds_that_bound_nothing_are_refused(options):
    with pytest.raises(ValueError, match="at least 1"):
        Router({}, **options)
