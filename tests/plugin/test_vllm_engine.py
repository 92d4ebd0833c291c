"""`VllmEngine`: answers equal those of `TorchEngine`; errors, counters and several engines."""

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
        Pair(row, tuple(MOLECULES[(row + role) % len(MOLECULES)] for role in range(width)))
        for row in range(count)
    ]


@pytest.mark.parametrize("name", [name for name in TASKS if name != "ask"])
def test_engine_answers_every_task_as_torch_does(engine, tiny, name):
    task = TASKS[name]
    pairs = pairs_for(task)
    answers = dict(engine.submit(name, pairs))
    assert answers.keys() == set(pairs)
    if task.grammar() is not None:
        assert {answer.status for answer in answers.values()} == {"ok"}
        assert all(0 < answer.confidence <= 1 for answer in answers.values())
    expected = dict(TorchEngine(tiny).submit(name, pairs))
    for pair, answer in answers.items():
        other = expected[pair]
        # Random weights stop in the middle of a character, whose first bytes vLLM withholds.
        assert answer.text.rstrip("\ufffd") == other.text.rstrip("\ufffd")
        assert (answer.status, answer.value, answer.label) == (
            other.status,
            other.value,
            other.label,
        )
        if answer.confidence is not None:
            assert answer.confidence == pytest.approx(other.confidence, rel=2e-3, abs=1e-9)


def test_engine_counts_prompt_and_cached_tokens(engine):
    before = engine.counters()
    assert set(before) == set(COUNTERS)
    pairs = [Pair(row, ("CCCCCCCO", "O" * (1 + row % 2) + "CC")) for row in range(12)]
    list(engine.submit("solvation", pairs))
    after = engine.counters()
    added = {name: after[name] - before[name] for name in COUNTERS}
    assert 0 < added["cached_tokens"] < added["prompt_tokens"]


def test_bad_molecule_fails_its_own_pair_only(engine, tiny):
    pairs = [
        Pair(0, ("CCO", "O")),
        Pair(1, ("C1CC", "O")),
        Pair(2, ("CCO", "*")),
        Pair(3, ("N", "O")),
    ]
    for tested in (engine, TorchEngine(tiny)):
        answers = {pair.row: answer for pair, answer in tested.submit("solvation", pairs)}
        statuses = [answers[row].status for row in range(4)]
        assert statuses == ["ok", "bad_molecule", "bad_molecule", "ok"]
        assert "C1CC" in answers[1].error
        assert "unsupported" in answers[2].error


def test_engine_draws_pairs_only_as_fast_as_it_answers(engine):
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


def test_engine_answers_free_question_about_three_molecules(engine):
    ((_, answer),) = engine.submit("ask", [Pair(0, ("CCO", "O", "N"))], "Which one is basic?")
    assert answer.status in {"ok", "unparsed"}  # random weights write bytes that are no text
    assert answer.text


def test_engine_refuses_work_after_interrupted_step(tiny, monkeypatch):
    from moltc_vllm.plugin.engine.vllm_engine import VllmEngine

    broken = VllmEngine(tiny, max_in_flight=2)

    def fail():
        raise MemoryError("out of memory")

    monkeypatch.setattr(broken.engine, "step", fail)
    pairs = pairs_for(TASKS["ddi"])
    with pytest.raises(EngineError, match="has failed: out of memory"):
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


def statuses(engine):
    pairs = [Pair(0, ("CCO", "O")), Pair(1, ("CCN", "O"))]
    return [answer.status for _, answer in engine.submit("ddi", pairs)]


if __name__ == "__main__":
    random.seed(7)
    torch.manual_seed(7)
    expected = random.random(), torch.rand(1).item()
    random.seed(7)
    torch.manual_seed(7)
    set_num_threads = torch.set_num_threads
    first = VllmEngine(sys.argv[1])
    assert (random.random(), torch.rand(1).item()) == expected  # vLLM's worker seeds the RNG
    second = VllmEngine(sys.argv[1])  # in processes of its own
    assert statuses(first) == statuses(second) == ["ok", "ok"]
    del first
    assert statuses(second) == ["ok", "ok"]  # shutting the first one down does not affect it
    assert torch.set_num_threads is set_num_threads
    print("both answered")
"""


@pytest.mark.slow
def test_two_engines_in_one_process_are_independent(tiny, tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    environment = dict(os.environ)
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    run = subprocess.run(
        [sys.executable, str(path), str(tiny)], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "both answered" in run.stdout
