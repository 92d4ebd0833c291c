"""Metrics of answers, compared with values computed by hand."""

import itertools
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.evaluate.metric import AnsweredRow
from moltc_vllm.evaluate.predict import predict_rows
from moltc_vllm.evaluate.scoring import compute_metrics, evaluate
from moltc_vllm.tasks import Answer, get_task
from tests.evaluate.fakes import FakeEngine, make_answer, make_dataset, shuffled

UNPARSED, BAD, ERROR = "unparsed", "bad_molecule", "error"


def answered_rows(name, rows):
    """Make answered rows of (target, answer, confidence); an answer may be a failed status."""

    def answer(given, *confidence):
        if given in (UNPARSED, BAD, ERROR):
            return get_task(name).failed(given, "because")
        return make_answer(name, given, *confidence)

    data = make_dataset(name, [target for target, *_ in rows])
    return [AnsweredRow(row, answer(*rows[row.number - 1][1:])) for row in data.rows]


def score(name, rows, **options):
    """Evaluate rows of (target, answer, confidence)."""
    data = make_dataset(name, [target for target, *_ in rows])
    answers = {row.number: answer for row, answer in answered_rows(name, rows)}
    return evaluate(get_task(name), data, answers, **{"resamples": 200, **options})


def test_metrics_of_two_labels():
    evaluation = score(
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
    # Rows 1 and 4 of six are right.
    assert metrics["accuracy"].value == pytest.approx(2 / 6)
    assert (metrics["accuracy"].rows, metrics["accuracy"].failed) == (6, "wrong")
    # One true positive, two false negatives, one false positive: 2 / (2 + 2 + 1).
    assert metrics["f1"].value == pytest.approx(2 / 5)
    # Two of four pairs of a positive and a negative are in order.
    assert metrics["auroc"].value == pytest.approx(0.5)
    assert (metrics["auroc"].rows, metrics["auroc"].failed) == (4, "left out")
    # Positives have scores 0.9 (precision 1) and 0.2 (precision 2/4), each half of the recall.
    assert metrics["aupr"].value == pytest.approx(0.75)
    assert metrics["parse_failure_rate"].value == pytest.approx(1 / 5)
    assert metrics["parse_failure_rate"].rows == 5
    counts = evaluation.counts
    assert (counts.rows, counts.not_measured, counts.measured, counts.asked) == (7, 1, 6, 6)
    assert (counts.answered, counts.unparsed, counts.bad_molecules, counts.errors) == (4, 1, 1, 0)
    assert (counts.not_reached, counts.failed) == (0, 2)
    # Labels with confidences 0.6, 0.7, 0.8, 0.9 are wrong, right, wrong, right.
    assert evaluation.calibration.of == "accuracy"
    assert evaluation.calibration.error.value == pytest.approx((0.6 + 0.3 + 0.8 + 0.1) / 4)


def test_metrics_of_many_labels():
    evaluation = score("ddi_type", [(1, 1), (1, 2), (2, 2), (3, ERROR), (1, 1), (2, 4)])
    metrics = evaluation.metrics
    assert metrics["accuracy"].value == pytest.approx(3 / 6)
    # F1 is 4/5 for class 1, 2/4 for class 2, 0 for class 3 and for class 4 (only predicted).
    assert metrics["macro_f1"].value == pytest.approx((4 / 5 + 2 / 4) / 4)
    assert metrics["weighted_f1"].value == pytest.approx((3 * 4 / 5 + 2 * 2 / 4) / 6)
    assert set(metrics) == {"accuracy", "macro_f1", "weighted_f1", "parse_failure_rate"}
    assert evaluation.calibration.error.reason == "no answer has a confidence"


def test_metrics_of_numbers():
    evaluation = score(
        "solvation",
        [
            (-4.0, -4.0, 0.9),  # [-4.0, -3.5) contains it
            (-3.0, -1.0, 0.5),  # error 2
            (1.0, 1.3, 0.3),  # error 0.3, [1.0, 1.5) contains it
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
        (-3.5, (-4.0, -3.5), 0),  # belongs to the next interval
        (-3.504, (-4.0, -3.5), 0),  # rounded to -3.50
        (-3.506, (-4.0, -3.5), 1),
        (-4.001, (-4.0, -3.5), 1),
        (-4.0, (-4.0, -4.0), 1),  # published form of a value at an end
        (-4.1, (-4.0, -4.0), 0),
    ],
)
def test_interval_hit_rate_rounds_target_as_in_training_texts(target, interval, hit):
    answer = make_answer("solvation", -3.9).model_copy(update={"likeliest_interval": interval})
    evaluation = evaluate(get_task("solvation"), make_dataset("solvation", [target]), {1: answer})
    assert evaluation.metrics["interval_hit_rate"].value == hit


def test_coverage_and_width_of_prediction_intervals():
    data = make_dataset("solvation", [1.0, 2.0, 3.0, 4.0, 5.0])
    ends = {1: (0.5, 1.0), 2: (2.5, 3.5), 3: (2.0, 4.0), 5: (5.0, 5.5)}
    answers = {row: make_answer("solvation", 2.0) for row in range(1, 5)}
    answers[5] = get_task("solvation").failed("error", "because")
    for row, (low, high) in ends.items():
        if row < 5:
            answers[row] = answers[row].model_copy(update={"low": low, "high": high})
    metrics = evaluate(get_task("solvation"), data, answers).metrics
    assert metrics["interval_coverage"].value == pytest.approx(2 / 3)
    assert metrics["mean_interval_width"].value == pytest.approx(3.5 / 3)
    assert metrics["interval_coverage"].rows == metrics["mean_interval_width"].rows == 3
    assert 0 <= metrics["interval_coverage"].low < 1 == metrics["interval_coverage"].high
    bare = evaluate(get_task("solvation"), data, {1: make_answer("solvation", 1.0)}).metrics
    assert bare["interval_coverage"].value is None
    assert bare["interval_coverage"].reason == "the model has no calibrated intervals"


def test_value_without_interval_counts_in_value_metrics_only():
    data = make_dataset("solvation", [1.0, 2.0])
    answers = {
        1: make_answer("solvation", 1.5, 0.5).model_copy(update={"likeliest_interval": None}),
        2: make_answer("solvation", 2.0, 0.75),
    }
    evaluation = evaluate(get_task("solvation"), data, answers)
    assert evaluation.metrics["mae"].value == 0.25
    assert evaluation.metrics["interval_hit_rate"].rows == 1
    assert evaluation.calibration.error.rows == 1
    assert evaluation.calibration.error.value == 0.25


def test_failed_answer_is_wrong_even_with_right_text():
    task = get_task("caption")
    cut_off = task.failed("error", "cut off", text="An acid.")
    evaluation = evaluate(task, make_dataset("caption", ["An acid."]), {1: cut_off})
    assert evaluation.metrics["exact_match"].value == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 25))
@pytest.mark.parametrize("name", ["ddi", "ddi_type", "solvation", "ddi_side_effects", "caption"])
def test_bootstrap_metric_equals_metric_of_repeated_rows(name, seed, size):
    """Weights of a resample and its repeated rows give equal metrics, also with failures."""
    generator = random.Random(seed)
    targets = {
        "ddi": [0, 1],
        "ddi_type": [1, 2, 49],
        "solvation": [-4.0, -3.3, 2.125],
        "ddi_side_effects": [("Pain",), ("Pain", "nausea"), ("Cough",)],
        "caption": ["a", "b"],
    }[name]

    def row():
        failed = generator.random() < 0.25
        answer = generator.choice([UNPARSED, BAD, ERROR] if failed else targets)
        return generator.choice(targets), answer, generator.choice([0.25, 0.5, 0.875])

    rows = [row() for _ in range(size)]
    drawn = [generator.randrange(size) for _ in range(size)]
    weights = np.bincount(drawn, minlength=size).astype(float)[None, :]
    metrics = compute_metrics(get_task(name), answered_rows(name, rows))
    resampled = {metric.name: metric.bootstrap_metric(weights)[0] for metric in metrics}
    repeated = score(name, [rows[index] for index in drawn], resamples=0).metrics
    assert resampled.keys() == repeated.keys()
    for key, metric in repeated.items():
        if metric.value is None:
            assert not np.isfinite(resampled[key])
        else:
            assert resampled[key] == pytest.approx(metric.value, rel=1e-9, abs=1e-9)


def test_metrics_of_terms():
    task = get_task("ddi_side_effects")
    data = make_dataset(task.name, [("nausea", "Chest  pain"), ("Pain",), ("Pain",), ("edema",)])
    answers = {
        1: make_answer(task.name, ("NAUSEA", "Pain", "chest pain", "Cough")),
        2: make_answer(task.name, ("nausea",)),
        3: task.failed("unparsed", "has no whole term"),
        4: make_answer(task.name, ("edema",), 0.5),
    }
    evaluation = evaluate(task, data, answers)
    metrics = evaluation.metrics
    assert metrics["precision"].value == pytest.approx(3 / 6)
    assert metrics["recall"].value == pytest.approx(3 / 5)
    assert metrics["f1"].value == pytest.approx(6 / 11)
    # All four terms hit all five in all rows; fewer terms hit too few of them.
    assert metrics["constant_f1"].value == pytest.approx(2 * 5 / (5 + 4 * 4))
    assert evaluation.calibration is None


@given(st.lists(st.frozensets(st.sampled_from("abcde"), min_size=1), min_size=1, max_size=9))
@settings(deadline=None)
def test_constant_f1_is_the_best_of_all_constant_lists(targets):
    task = get_task("ddi_side_effects")
    data = make_dataset(task.name, [tuple(sorted(terms)) for terms in targets])
    answers = {row.number: task.failed("error", "too busy") for row in data.rows}
    found = evaluate(task, data, answers, resamples=0).metrics["constant_f1"].value
    size = sum(map(len, targets))
    candidates = (set(c) for k in range(1, 6) for c in itertools.combinations("abcde", k))
    assert found == pytest.approx(
        max(
            2
            * sum(len(terms & constant) for terms in targets)
            / (size + len(targets) * len(constant))
            for constant in candidates
        )
    )


def test_metrics_of_texts():
    evaluation = score("caption", [("An acid.", "an  ACID."), ("A base.", "A salt."), ("x", ERROR)])
    assert evaluation.metrics["exact_match"].value == pytest.approx(1 / 3)
    assert evaluation.calibration is None


@pytest.mark.parametrize(
    ("name", "rows", "reasons"),
    [
        (
            "ddi",
            [(1, 1, 0.9), (1, 0, 0.6)],
            {"auroc": "all rows have the same label", "aupr": "all rows have the same label"},
        ),
        ("ddi", [(0, 0, 0.9), (0, 0, 0.6)], {"f1": "no row or answer is positive"}),
        ("ddi", [(0, 0), (1, 0)], {"auroc": "no answer has a confidence"}),
        ("ddi", [(0, BAD), (1, ERROR)], {"parse_failure_rate": "no text was generated"}),
        ("solvation", [(1.0, 1.0), (1.0, 2.0)], {"r2": "all targets are equal"}),
        ("solvation", [(1.0, 1.5)], {"r2": "all targets are equal"}),
        ("solvation", [(1.0, BAD), (2.0, UNPARSED)], {"mae": "no row was answered"}),
        ("solvation", [(1.0, BAD)], {"r2": "no row was answered"}),
        ("ddi_side_effects", [(("Pain",), UNPARSED)], {"precision": "no term was predicted"}),
    ],
)
def test_undefined_metric_is_null_with_reason(name, rows, reasons):
    evaluation = score(name, rows)
    for metric, reason in reasons.items():
        result = evaluation.metrics[metric]
        assert (result.value, result.low, result.high) == (None, None, None)
        assert result.reason == reason
    content = json.loads(json.dumps(evaluation.as_json(), allow_nan=False))
    assert all(
        metric["value"] is not None or metric["reason"] for metric in content["metrics"].values()
    )


def test_single_row_has_value_without_interval():
    mae = score("solvation", [(1.0, 1.5)]).metrics["mae"]
    assert (mae.value, mae.low, mae.reason) == (0.5, None, "no interval for a single row")
    mae = score("solvation", [(1.0, 1.5), (2.0, 4.0)], resamples=0).metrics["mae"]
    assert (mae.value, mae.low, mae.reason) == (1.25, None, None)


def test_evaluate_without_answers_has_no_metrics():
    task = get_task("solvation")
    evaluation = evaluate(task, make_dataset("solvation", [1.0, 2.0]), {})
    assert evaluation.counts.not_reached == 2
    assert evaluation.metrics == {}
    assert evaluation.calibration.error.value is None
    json.dumps(evaluation.as_json(), allow_nan=False)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
def test_infinite_value_is_null():
    huge = Answer(task="solvation", status="ok", value=1e308, likeliest_interval=(0, 1), text="x")
    evaluation = evaluate(
        get_task("solvation"), make_dataset("solvation", [-1.0, 1.0]), {1: huge, 2: huge}
    )
    assert evaluation.metrics["rmse"].reason == "value is not finite"
    json.dumps(evaluation.as_json(), allow_nan=False)


labeled = st.tuples(
    st.integers(0, 1), st.sampled_from([0, 1, UNPARSED]), st.sampled_from([0.2, 0.5, 0.75, 0.9])
)
measured = st.tuples(
    st.floats(-10, 10), st.one_of(st.floats(-20, 20), st.just(ERROR)), st.floats(0, 1)
)


@settings(max_examples=30, deadline=None)
@given(
    st.one_of(
        st.tuples(st.just("ddi"), st.lists(labeled, min_size=1, max_size=30)),
        st.tuples(st.just("solvation"), st.lists(measured, min_size=1, max_size=30)),
    ),
    st.randoms(),
)
def test_metrics_do_not_depend_on_row_order(case, shuffle):
    name, rows = case
    evaluation = score(name, rows, resamples=0)
    shuffle.shuffle(rows)
    shuffled_evaluation = score(name, rows, resamples=0)
    assert evaluation.counts == shuffled_evaluation.counts
    for metric, result in evaluation.metrics.items():
        other = shuffled_evaluation.metrics[metric]
        if result.value is None:
            assert other == result
        else:
            assert other.value == pytest.approx(result.value, rel=1e-9, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.lists(labeled, min_size=2, max_size=30), st.integers(0, 100))
def test_intervals_contain_accuracy_and_f1(rows, seed):
    metrics = score("ddi", rows, resamples=400, seed=seed).metrics
    for name in ("accuracy", "f1", "parse_failure_rate"):
        result = metrics[name]
        if result.low is not None:
            assert result.low - 1e-12 <= result.value <= result.high + 1e-12


def test_metrics_do_not_depend_on_answer_order():
    task = get_task("ddi")
    data = make_dataset("ddi", [random.Random(1).randint(0, 1) for _ in range(60)])

    def answer(_, pair):
        label = pair.row % 3 % 2
        return make_answer("ddi", label, (pair.row % 7 + 1) / 8)

    results = []
    for order in (reversed, shuffled(1), shuffled(2)):
        answered = predict_rows(FakeEngine(answer, order), task, data.rows)
        answers = {row.number: given for row, given in answered}
        results.append(evaluate(task, data, answers))
    assert results[0] == results[1] == results[2]
    assert results[0].metrics["accuracy"].low < results[0].metrics["accuracy"].high
