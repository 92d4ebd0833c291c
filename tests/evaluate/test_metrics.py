"""Metrics of answers, by hand; what counts as wrong and what is left out."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.evaluate.metric import Answered
from moltc_vllm.evaluate.predict import ask
from moltc_vllm.evaluate.scoring import compute_metrics, evaluate
from moltc_vllm.tasks import Answer, get_task
from moltc_vllm.tasks.engine import EngineError
from tests.evaluate.fakes import FakeEngine, dataset, said, shuffled

UNPARSED, BAD, ERROR = "unparsed", "bad_molecule", "error"


def paired(name, rows):
    """Rows of (target, answer, confidence); an answer may be a failure's status."""

    def answer(given, *confidence):
        if given in (UNPARSED, BAD, ERROR):
            return get_task(name).failed(given, "because")
        return said(name, given, *confidence)

    data = dataset(name, [target for target, *_ in rows])
    return [Answered(row, answer(*rows[row.number - 1][1:])) for row in data.rows]


def scored(name, rows, **options):
    data = dataset(name, [target for target, *_ in rows])
    answers = {row.number: answer for row, answer in paired(name, rows)}
    return evaluate(get_task(name), data, answers, **{"resamples": 200, **options})


def test_a_choice_of_two_by_hand():
    evaluation = scored(
        "ddi",
        [
            (1, 1, 0.9),  # score 0.9
            (0, 1, 0.6),  # score 0.6
            (1, 0, 0.8),  # score 0.2
            (0, 0, 0.7),  # score 0.3
            (1, UNPARSED),
            (0, BAD),
            (None, 1),
        ],
    )
    metrics = evaluation.metrics
    # Right: rows 1 and 4, of six.
    assert metrics["accuracy"].value == pytest.approx(2 / 6)
    assert (metrics["accuracy"].rows, metrics["accuracy"].failed) == (6, "wrong")
    # One of three positives found, one named wrongly: 2 / (2 + 1 + 2).
    assert metrics["f1"].value == pytest.approx(2 / 5)
    # Of four pairs of a positive and a negative, two are in order.
    assert metrics["auroc"].value == pytest.approx(0.5)
    assert (metrics["auroc"].rows, metrics["auroc"].failed) == (4, "left out")
    # Positives at 0.9 (precision 1) and 0.2 (precision 2/4), half of the recall each.
    assert metrics["aupr"].value == pytest.approx(0.75)
    assert metrics["parse_failure_rate"].value == pytest.approx(1 / 5)
    assert metrics["parse_failure_rate"].rows == 5
    counts = evaluation.counts
    assert (counts.rows, counts.not_measured, counts.measured, counts.asked) == (7, 1, 6, 6)
    assert (counts.answered, counts.unparsed, counts.bad_molecules, counts.errors) == (4, 1, 1, 0)
    assert (counts.not_reached, counts.failed) == (0, 2)
    # Right or wrong of the label, at 0.6, 0.7, 0.8, 0.9: 0, 1, 0, 1.
    assert evaluation.calibration.of == "accuracy"
    assert evaluation.calibration.error.value == pytest.approx((0.6 + 0.3 + 0.8 + 0.1) / 4)


def test_a_choice_of_many_by_hand():
    evaluation = scored("ddi_type", [(1, 1), (1, 2), (2, 2), (3, ERROR), (1, 1), (2, 4)])
    metrics = evaluation.metrics
    assert metrics["accuracy"].value == pytest.approx(3 / 6)
    # F1: class 1: 4/5, class 2: 2/4, class 3: 0, class 4 (only answered): 0.
    assert metrics["macro_f1"].value == pytest.approx((4 / 5 + 2 / 4) / 4)
    assert metrics["weighted_f1"].value == pytest.approx((3 * 4 / 5 + 2 * 2 / 4) / 6)
    assert set(metrics) == {"accuracy", "macro_f1", "weighted_f1", "parse_failure_rate"}
    assert evaluation.calibration.error.reason == "no answer has a confidence"


def test_numbers_by_hand():
    evaluation = scored(
        "solvation",
        [
            (-4.0, -4.0, 0.9),  # [-4.0, -3.5) holds it
            (-3.0, -1.0, 0.5),  # off by 2
            (1.0, 1.3, 0.3),  # off by 0.3, [1.0, 1.5) holds it
            (2.0, UNPARSED),
            (99.0, BAD),
        ],
    )
    metrics = evaluation.metrics
    assert metrics["mae"].value == pytest.approx(2.3 / 3)
    assert metrics["rmse"].value == pytest.approx((4.09 / 3) ** 0.5)
    assert metrics["r2"].value == pytest.approx(1 - 4.09 / 14)  # mean -2: 4 + 1 + 9
    assert metrics["interval_hit_rate"].value == pytest.approx(2 / 3)
    assert {metrics[name].rows for name in ("mae", "rmse", "r2", "interval_hit_rate")} == {3}
    assert metrics["mae"].failed == "left out"
    assert evaluation.calibration.of == "interval_hit_rate"
    assert evaluation.calibration.error.value == pytest.approx((0.1 + 0.5 + 0.7) / 3)
    assert evaluation.counts.failed == 2


@pytest.mark.parametrize(
    ("target", "interval", "hit"),
    [
        (-4.0, (-4.0, -3.5), 1),
        (-3.5, (-4.0, -3.5), 0),  # belongs to the next one
        (-3.504, (-4.0, -3.5), 0),  # as written in a training text: -3.50
        (-3.506, (-4.0, -3.5), 1),
        (-4.001, (-4.0, -3.5), 1),
        (-4.0, (-4.0, -4.0), 1),  # the published form of a value on an end
        (-4.1, (-4.0, -4.0), 0),
    ],
)
def test_what_an_interval_holds(target, interval, hit):
    answer = said("solvation", -3.9).model_copy(update={"interval": interval})
    found = evaluate(get_task("solvation"), dataset("solvation", [target]), {1: answer})
    assert found.metrics["interval_hit_rate"].value == hit


def test_a_value_without_interval_counts_as_a_value_only():
    data = dataset("solvation", [1.0, 2.0])
    answers = {
        1: said("solvation", 1.5, 0.5).model_copy(update={"interval": None}),
        2: said("solvation", 2.0, 0.75),
    }
    evaluation = evaluate(get_task("solvation"), data, answers)
    assert evaluation.metrics["mae"].value == 0.25
    assert evaluation.metrics["interval_hit_rate"].rows == 1
    assert evaluation.calibration.error.rows == 1
    assert evaluation.calibration.error.value == 0.25


def test_what_failed_is_wrong_even_with_the_right_text():
    task = get_task("caption")
    cut_off = task.failed("error", "cut off", text="An acid.")
    evaluation = evaluate(task, dataset("caption", ["An acid."]), {1: cut_off})
    assert evaluation.metrics["exact_match"].value == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 25))
@pytest.mark.parametrize("name", ["ddi", "ddi_type", "solvation", "ddi_side_effects", "caption"])
def test_a_resample_has_the_value_of_its_rows(name, seed, size):
    """Every metric, with failures: weights and repeated rows are the same."""
    generator = random.Random(seed)
    targets = {
        "ddi": [0, 1],
        "ddi_type": [1, 2, 49],
        "solvation": [-4.0, -3.3, 2.125],
        "ddi_side_effects": [("rash",), ("rash", "fever"), ("cough",)],
        "caption": ["a", "b"],
    }[name]

    def row():
        failed = generator.random() < 0.25
        answer = generator.choice([UNPARSED, BAD, ERROR] if failed else targets)
        return generator.choice(targets), answer, generator.choice([0.25, 0.5, 0.875])

    rows = [row() for _ in range(size)]
    drawn = [generator.randrange(size) for _ in range(size)]
    weights = np.bincount(drawn, minlength=size).astype(float)[None, :]
    every = compute_metrics(get_task(name), paired(name, rows))
    resampled = {one.name: one.resampled(weights)[0] for one in every}
    repeated = scored(name, [rows[place] for place in drawn], resamples=0).metrics
    assert resampled.keys() == repeated.keys()
    for key, metric in repeated.items():
        if metric.value is None:
            assert not np.isfinite(resampled[key])
        else:
            assert resampled[key] == pytest.approx(metric.value, rel=1e-9, abs=1e-9)


def test_lists_of_terms_by_hand():
    task = get_task("ddi_side_effects")
    data = dataset(task.name, [("nausea", "Low  pain"), ("fever",), ("fever",), ("rash",)])
    answers = {
        1: said(task.name, ("NAUSEA", "fever", "low pain", "cough")),
        2: said(task.name, ("nausea",)),
        3: task.failed("unparsed", "has no whole term"),
        4: said(task.name, ("rash",), 0.5),
    }
    evaluation = evaluate(task, data, answers)
    metrics = evaluation.metrics
    assert metrics["precision"].value == pytest.approx(3 / 6)
    assert metrics["recall"].value == pytest.approx(3 / 5)
    assert metrics["f1"].value == pytest.approx(6 / 11)
    assert evaluation.calibration is None


def test_texts_by_hand():
    evaluation = scored(
        "caption", [("An acid.", "an  ACID."), ("A base.", "A salt."), ("x", ERROR)]
    )
    assert evaluation.metrics["exact_match"].value == pytest.approx(1 / 3)
    assert evaluation.calibration is None


@pytest.mark.parametrize(
    ("name", "rows", "reasons"),
    [
        ("ddi", [(1, 1, 0.9), (1, 0, 0.6)], {"auroc": "one class only", "aupr": "one class only"}),
        ("ddi", [(0, 0, 0.9), (0, 0, 0.6)], {"f1": "no row is positive, and no answer"}),
        ("ddi", [(0, 0), (1, 0)], {"auroc": "no answer has a confidence"}),
        ("ddi", [(0, BAD), (1, ERROR)], {"parse_failure_rate": "no text was generated"}),
        ("solvation", [(1.0, 1.0), (1.0, 2.0)], {"r2": "all targets are equal"}),
        ("solvation", [(1.0, 1.5)], {"r2": "all targets are equal"}),
        ("solvation", [(1.0, BAD), (2.0, UNPARSED)], {"mae": "no row was answered"}),
        ("solvation", [(1.0, BAD)], {"r2": "no row was answered"}),
        ("ddi_side_effects", [(("rash",), UNPARSED)], {"precision": "no term was named"}),
    ],
)
def test_what_is_not_defined_is_null_with_a_reason(name, rows, reasons):
    evaluation = scored(name, rows)
    for metric, reason in reasons.items():
        found = evaluation.metrics[metric]
        assert (found.value, found.low, found.high) == (None, None, None)
        assert found.reason == reason
    plain = json.loads(json.dumps(evaluation.as_json(), allow_nan=False))
    assert all(one["value"] is not None or one["reason"] for one in plain["metrics"].values())


def test_one_row_has_a_value_and_no_interval():
    mae = scored("solvation", [(1.0, 1.5)]).metrics["mae"]
    assert (mae.value, mae.low, mae.reason) == (0.5, None, "one row has no interval")
    mae = scored("solvation", [(1.0, 1.5), (2.0, 4.0)], resamples=0).metrics["mae"]
    assert (mae.value, mae.low, mae.reason) == (1.25, None, None)


def test_nothing_was_answered_at_all():
    task = get_task("solvation")
    evaluation = evaluate(task, dataset("solvation", [1.0, 2.0]), {})
    assert evaluation.counts.not_reached == 2
    assert evaluation.metrics == {}
    assert evaluation.calibration.error.value is None
    json.dumps(evaluation.as_json(), allow_nan=False)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
def test_a_value_too_large_for_json_is_null():
    huge = Answer(task="solvation", status="ok", value=1e308, interval=(0, 1), text="x")
    evaluation = evaluate(
        get_task("solvation"), dataset("solvation", [-1.0, 1.0]), {1: huge, 2: huge}
    )
    assert evaluation.metrics["rmse"].reason == "too large for a number"
    json.dumps(evaluation.as_json(), allow_nan=False)


labelled = st.tuples(
    st.integers(0, 1), st.sampled_from([0, 1, UNPARSED]), st.sampled_from([0.2, 0.5, 0.75, 0.9])
)
measured = st.tuples(
    st.floats(-10, 10), st.one_of(st.floats(-20, 20), st.just(ERROR)), st.floats(0, 1)
)


@settings(max_examples=30, deadline=None)
@given(
    st.one_of(
        st.tuples(st.just("ddi"), st.lists(labelled, min_size=1, max_size=30)),
        st.tuples(st.just("solvation"), st.lists(measured, min_size=1, max_size=30)),
    ),
    st.randoms(),
)
def test_the_order_of_rows_does_not_matter(case, shuffle):
    name, rows = case
    one = scored(name, rows, resamples=0)
    shuffle.shuffle(rows)
    other = scored(name, rows, resamples=0)
    assert one.counts == other.counts
    for metric, found in one.metrics.items():
        if found.value is None:
            assert other.metrics[metric] == found
        else:
            assert other.metrics[metric].value == pytest.approx(found.value, rel=1e-9, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.lists(labelled, min_size=2, max_size=30), st.integers(0, 100))
def test_intervals_of_accuracy_and_f1_hold_them(rows, seed):
    metrics = scored("ddi", rows, resamples=400, seed=seed).metrics
    for name in ("accuracy", "f1", "parse_failure_rate"):
        found = metrics[name]
        if found.low is not None:
            assert found.low - 1e-12 <= found.value <= found.high + 1e-12


def test_answers_come_in_any_order_and_nothing_changes():
    task = get_task("ddi")
    data = dataset("ddi", [random.Random(1).randint(0, 1) for _ in range(60)])

    def answer(_, pair):
        label = pair.row % 3 % 2
        return said("ddi", label, (pair.row % 7 + 1) / 8)

    results = [
        evaluate(task, data, {row.number: got for row, got in ask(engine, task, data.rows)})
        for engine in (FakeEngine(answer, order) for order in (reversed, shuffled(1), shuffled(2)))
    ]
    assert results[0] == results[1] == results[2]
    assert results[0].metrics["accuracy"].low < results[0].metrics["accuracy"].high


def test_rows_are_drawn_as_the_engine_wants_them():
    data = dataset("ddi", [1] * 50)

    class Lazy(FakeEngine):
        def submit(self, task, pairs, question=None):
            for pair in self._counted(pairs):
                yield pair, self.answer(get_task(task), pair)

    engine = Lazy(lambda task, pair: said("ddi", 1))
    answers = ask(engine, get_task("ddi"), data.rows)
    assert [next(answers)[0].number for _ in range(3)] == [1, 2, 3]
    assert engine.drawn == 3


def test_an_engine_that_forgets_or_repeats():
    task, data = get_task("ddi"), dataset("ddi", [1, 0, 1])

    def submit(rows):
        engine = FakeEngine(
            lambda task, pair: said("ddi", 1), lambda pairs: [pairs[i] for i in rows]
        )
        return {row.number: answer for row, answer in ask(engine, task, data.rows)}

    assert submit([2, 0, 1])[2].status == "ok"
    forgotten = submit([0, 2])
    assert (forgotten[2].status, forgotten[2].error) == ("error", "the engine gave no answer")
    assert forgotten[3].status == "ok"
    with pytest.raises(EngineError, match="row 1 was answered twice"):
        submit([0, 1, 0, 2])
