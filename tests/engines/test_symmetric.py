"""`SymmetrizedEngine` averages the answers of both orders of a symmetric task."""

import pytest

from moltc_vllm.engines.symmetric import SymmetrizedEngine
from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.engine import Pair
from tests.evaluate.fakes import FakeEngine, make_answer, shuffled

YES, NO = 1, 0
PROBABILITIES = {
    ("A", "B"): (YES, 0.9),
    ("B", "A"): (NO, 0.6),
    ("C", "D"): (NO, 0.8),
    ("D", "C"): (NO, 0.7),
    ("A", "bad"): (YES, 0.5),
}


def answer(task, pair):
    if "bad" in pair.molecules[0]:
        return task.failed("bad_molecule", f"molecule {pair.molecules[0]!r} is invalid")
    return make_answer(task.name, *PROBABILITIES[pair.molecules])


@pytest.mark.parametrize("seed", range(4))
def test_engine_averages_probabilities_of_both_orders(seed):
    engine = SymmetrizedEngine(FakeEngine(answer, order=shuffled(seed)))
    pairs = [Pair(7, ("A", "B")), Pair(3, ("C", "D")), Pair(9, ("bad", "A"))]
    answers = dict(engine.submit("ddi", pairs))
    assert set(answers) == set(pairs)
    first, second, third = (answers[pair] for pair in pairs)
    assert (first.label_id, first.confidence) == (YES, pytest.approx((0.9 + 0.4) / 2))
    assert first.text == get_task("ddi").write(YES)
    assert (second.label_id, second.confidence) == (NO, pytest.approx(0.75))
    assert third.status == "bad_molecule"


def test_more_confident_order_determines_the_label():
    probabilities = {("A", "B"): (YES, 0.55), ("B", "A"): (NO, 0.95)}
    engine = SymmetrizedEngine(
        FakeEngine(lambda task, pair: make_answer(task.name, *probabilities[pair.molecules]))
    )
    ((_, answer),) = engine.submit("ddi", [Pair(0, ("A", "B"))])
    assert (answer.label_id, answer.confidence) == (NO, pytest.approx(0.7))
    assert answer.text == get_task("ddi").write(NO)


def test_engine_passes_other_tasks_on_once():
    inner = FakeEngine(lambda task, pair: make_answer(task.name, -4.0, 0.5))
    list(SymmetrizedEngine(inner).submit("solvation", [Pair(0, ("CCO", "O"))]))
    assert inner.num_submitted == 1


class OrderIgnoringEngine(FakeEngine):
    """Engine that ignores the order of the molecules in some tasks."""

    def __init__(self, answer, tasks):
        super().__init__(answer)
        self.tasks = tasks

    def ignores_order(self, task):
        return task in self.tasks


@pytest.mark.parametrize(("tasks", "submitted"), [({"ddi"}, 2), ({"ddi_biosnap"}, 4)])
def test_engine_submits_pairs_once_if_the_order_does_not_matter(tasks, submitted):
    inner = OrderIgnoringEngine(answer, tasks)
    engine = SymmetrizedEngine(inner)
    pairs = [Pair(7, ("A", "B")), Pair(3, ("C", "D"))]
    assert set(dict(engine.submit("ddi", pairs))) == set(pairs)
    assert inner.num_submitted == submitted
    assert engine.ignores_order("ddi") == (submitted == 2)
