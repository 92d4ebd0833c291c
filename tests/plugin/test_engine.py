"""The engines behind one protocol give one answer."""

import os
import subprocess
import sys

import pytest

from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.tasks import TASKS
from moltc_vllm.tasks.engine import COUNTERS, EngineError, Pair
from tests.molecules import DRUGS

MOLECULES = list(DRUGS.values())


@pytest.fixture(scope="module")
def engine(tiny):
    from moltc_vllm.plugin.engine.vllm_engine import VllmEngine

    return VllmEngine(tiny, max_in_flight=5)


def pairs_for(task, count=6):
    width = len(task.roles)
    return [
        Pair(i, tuple(MOLECULES[(i + j) % len(MOLECULES)] for j in range(width)))
        for i in range(count)
    ]


@pytest.mark.parametrize("name", [n for n in TASKS if n != "ask"])
def test_every_task_is_answered_and_equal_to_plain_torch(engine, tiny, name):
    task = TASKS[name]
    pairs = pairs_for(task)
    got = dict(engine.submit(name, pairs))
    assert got.keys() == set(pairs)
    if task.grammar() is not None:
        assert {answer.status for answer in got.values()} == {"ok"}
        assert all(0 < answer.confidence <= 1 for answer in got.values())
    expected = dict(TorchEngine(tiny).submit(name, pairs))
    for pair, answer in got.items():
        other = expected[pair]
        # Random weights stop in the middle of a character; vLLM holds its first bytes back.
        assert answer.text.rstrip("\ufffd") == other.text.rstrip("\ufffd")
        assert (answer.status, answer.value, answer.label) == (
            other.status,
            other.value,
            other.label,
        )
        if answer.confidence is not None:
            assert answer.confidence == pytest.approx(other.confidence, rel=2e-3, abs=1e-9)


def test_what_it_had_to_do_is_counted(engine):
    before = engine.counters()
    assert set(before) == set(COUNTERS)
    pairs = [Pair(row, ("CCCCCCCO", "O" * (1 + row % 2) + "CC")) for row in range(12)]
    list(engine.submit("solvation", pairs))
    after = engine.counters()
    grown = {name: after[name] - before[name] for name in COUNTERS}
    assert 0 < grown["cached_tokens"] < grown["prompt_tokens"]


def test_bad_molecules_are_their_own_pairs_error_only(engine, tiny):
    pairs = [
        Pair(0, ("CCO", "O")),
        Pair(1, ("C1CC", "O")),
        Pair(2, ("CCO", "*")),
        Pair(3, ("N", "O")),
    ]
    for one in (engine, TorchEngine(tiny)):
        got = {pair.row: answer for pair, answer in one.submit("solvation", pairs)}
        assert [got[row].status for row in range(4)] == ["ok", "bad_molecule", "bad_molecule", "ok"]
        assert "C1CC" in got[1].error
        assert "unsupported" in got[2].error


def test_pairs_are_drawn_only_as_fast_as_they_are_answered(engine):
    drawn = 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield Pair(drawn, ("CCO", "O"))

    answers = engine.submit("ddi", endless())
    for _ in range(12):
        next(answers)
    assert drawn <= 12 + 5 + 5
    answers.close()
    assert not engine.engine.has_unfinished_requests()


def test_a_free_question_over_three_molecules(engine):
    ((_, answer),) = engine.submit("ask", [Pair(0, ("CCO", "O", "N"))], "Which one is basic?")
    assert answer.status == "ok"
    assert answer.text


def test_an_engine_that_was_interrupted_in_a_step_is_not_used_again(tiny, monkeypatch):
    from moltc_vllm.plugin.engine.vllm_engine import VllmEngine

    broken = VllmEngine(tiny, max_in_flight=2)

    def fail():
        raise MemoryError("no room")

    monkeypatch.setattr(broken.engine, "step", fail)
    pairs = pairs_for(TASKS["ddi"])
    with pytest.raises(EngineError, match="has failed: no room"):
        list(broken.submit("ddi", pairs))
    monkeypatch.undo()
    with pytest.raises(EngineError, match="open another one"):
        list(broken.submit("ddi", pairs))


SCRIPT = """
import os, random, sys
import torch
from moltc_vllm.plugin.engine.vllm_engine import VllmEngine
from moltc_vllm.tasks.engine import Pair

os.environ.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)


def answered(engine):
    pairs = [Pair(0, ("CCO", "O")), Pair(1, ("CCN", "O"))]
    return [answer.status for _, answer in engine.submit("ddi", pairs)]


if __name__ == "__main__":
    random.seed(7)
    torch.manual_seed(7)
    wanted = random.random(), torch.rand(1).item()
    random.seed(7)
    torch.manual_seed(7)
    threads = torch.set_num_threads
    first = VllmEngine(sys.argv[1])
    assert (random.random(), torch.rand(1).item()) == wanted  # vLLM seeds what it takes for its own
    second = VllmEngine(sys.argv[1])  # in processes of its own: the first one has this one
    assert answered(first) == answered(second) == ["ok", "ok"]
    del first
    assert answered(second) == ["ok", "ok"]  # what both had in common has gone with the first
    assert torch.set_num_threads is threads
    print("both answered")
"""


@pytest.mark.slow
def test_two_engines_in_one_process_do_not_know_of_each_other(tiny, tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if k != "VLLM_ENABLE_V1_MULTIPROCESSING"}
    done = subprocess.run(
        [sys.executable, str(path), str(tiny)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "both answered" in done.stdout
