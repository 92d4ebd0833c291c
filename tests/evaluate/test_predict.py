"""`predict_rows`: each row is answered once, lazily and whatever the engine does."""

import pytest

from moltc_vllm.evaluate.predict import predict_rows
from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.engine import EngineError
from tests.evaluate.fakes import FakeEngine, make_answer, make_dataset

TASK = get_task("ddi")


def always_positive(task, pair):
    return make_answer("ddi", 1)


def predict_in_order(indices):
    """Answers by row number of an engine that answers three rows in the given order."""
    engine = FakeEngine(always_positive, lambda pairs: [pairs[index] for index in indices])
    data = make_dataset("ddi", [1, 0, 1])
    return {row.number: answer for row, answer in predict_rows(engine, TASK, data.rows)}


def test_rows_are_submitted_as_the_engine_draws_them():
    class LazyEngine(FakeEngine):
        def submit(self, task, pairs, question=None):
            for pair in self._count(pairs):
                yield pair, self.answer(get_task(task), pair)

    engine = LazyEngine(always_positive)
    answers = predict_rows(engine, TASK, make_dataset("ddi", [1] * 50).rows)
    assert [next(answers)[0].number for _ in range(3)] == [1, 2, 3]
    assert engine.num_submitted == 3


def test_answers_may_come_in_any_order():
    answers = predict_in_order([2, 0, 1])
    assert sorted(answers) == [1, 2, 3]
    assert answers[2].status == "ok"


def test_row_without_answer_gets_an_error():
    answers = predict_in_order([0, 2])
    assert (answers[2].status, answers[2].error) == ("error", "the engine returned no answer")
    assert answers[3].status == "ok"


def test_row_answered_twice_is_an_error():
    with pytest.raises(EngineError, match="the engine answered row 1 twice"):
        predict_in_order([0, 1, 0, 2])
