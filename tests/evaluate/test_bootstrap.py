"""Intervals: where they lie, how wide they are, and how long they take."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.evaluate.bootstrap import bootstrap
from moltc_vllm.evaluate.bootstrap_metrics import aupr, auroc, f1_of_classes, r2, ratio, root

values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40)


def interval(metric, rows, resamples=400, seed=0):
    return bootstrap({"it": metric}, rows, resamples=resamples, seed=seed)["it"]


@settings(max_examples=60, deadline=None)
@given(values, st.integers(0, 1000), st.data())
def test_the_interval_of_a_mean_holds_it(numbers, seed, data):
    """Also of a mean over some rows only, as errors are, and of a root."""
    numbers = np.abs(np.array(numbers))
    some = st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers))
    there = np.array(data.draw(some.filter(any)))
    for metric, value in (
        (ratio(np.where(there, numbers, 0.0), there), numbers[there].mean()),
        (root(ratio(np.where(there, numbers, 0.0), there)), np.sqrt(numbers[there].mean())),
    ):
        ends = interval(metric, len(numbers), seed=seed)
        if ends is not None:  # one row of many: most resamples may lack it
            slack = 1e-9 * (1 + abs(value))
            assert ends[0] - slack <= value <= ends[1] + slack


def test_the_interval_of_a_mean_is_as_wide_as_theory_has_it():
    numbers = np.random.default_rng(3).normal(size=2000)
    low, high = interval(ratio(numbers, np.ones(2000)), 2000, resamples=4000)
    expected = 1.96 * numbers.std() / np.sqrt(2000)
    assert high - numbers.mean() == pytest.approx(expected, rel=0.06)
    assert numbers.mean() - low == pytest.approx(expected, rel=0.06)


def test_it_is_seeded():
    numbers = np.arange(50.0)
    metric = ratio(numbers, np.ones(50))
    assert interval(metric, 50) == interval(metric, 50)
    assert interval(metric, 50, seed=1) != interval(metric, 50)


def test_all_metrics_see_the_same_resamples_however_many_there_are(monkeypatch):
    numbers = np.arange(50.0)
    one, two = ratio(numbers, np.ones(50)), ratio(numbers * 2, np.ones(50))
    both = bootstrap({"one": one, "two": two}, 50, resamples=300, seed=0)
    assert both["one"] == interval(one, 50, resamples=300)
    assert both["two"] == pytest.approx([2 * end for end in both["one"]])
    monkeypatch.setattr("moltc_vllm.evaluate.bootstrap._CELLS", 50 * 7)  # 7 at a time, 6 at the end
    assert bootstrap({"one": one}, 50, resamples=300, seed=0)["one"] == both["one"]


def test_what_most_resamples_lack_has_no_interval():
    rare = np.zeros(40)
    rare[0] = 1.0
    assert interval(ratio(rare, rare), 40, resamples=2000) == (1.0, 1.0)  # in 64 % of them
    # Only without the first row, in 36 %.
    assert interval(lambda weights: np.where(weights[:, 0] > 0, np.nan, 1.0), 40) is None
    never = ratio(rare, np.zeros(40))
    assert interval(never, 40) is None
    assert interval(ratio(rare, rare), 40, resamples=0) is None
    assert bootstrap({"it": never}, 0, resamples=10, seed=0) == {"it": None}


def test_a_thousand_resamples_of_ten_thousand_rows_take_seconds():
    generator = np.random.default_rng(0)
    rows = 10_000
    there = np.ones(rows, dtype=bool)
    truth, score = generator.random(rows) < 0.5, generator.random(rows)
    label = generator.integers(0, 86, rows)
    metrics = {
        "auroc": auroc(truth, score, there),
        "aupr": aupr(truth, score, there),
        "r2": r2(score, generator.random(rows), there),
        "f1": f1_of_classes(label, generator.integers(-1, 86, rows), weighted=False),
        "accuracy": ratio(truth, there),
    }
    begin = time.process_time()
    bootstrap(metrics, rows, resamples=1000, seed=0)
    assert time.process_time() - begin < 15  # 1 s on a quiet core
