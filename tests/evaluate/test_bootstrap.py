"""Bootstrap intervals: position, width, reproducibility and run time."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.evaluate.bootstrap import bootstrap
from moltc_vllm.evaluate.bootstrap_metrics import (
    aupr,
    auroc,
    f1_of_classes,
    r2,
    ratio,
    square_root,
)

number_lists = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40)


def interval(metric, rows, resamples=400, seed=0):
    return bootstrap({"metric": metric}, rows, resamples=resamples, seed=seed)["metric"]


@settings(max_examples=60, deadline=None)
@given(number_lists, st.integers(0, 1000), st.data())
def test_interval_of_mean_contains_it(numbers, seed, data):
    """Also for a mean over some of the rows, as errors have, and for its square root."""
    numbers = np.abs(np.array(numbers))
    flags = st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers))
    valid = np.array(data.draw(flags.filter(any)))
    mean = ratio(np.where(valid, numbers, 0.0), valid)
    for metric, value in (
        (mean, numbers[valid].mean()),
        (square_root(mean), np.sqrt(numbers[valid].mean())),
    ):
        ends = interval(metric, len(numbers), seed=seed)
        if ends is not None:  # most resamples may lack the only valid row of many
            tolerance = 1e-9 * (1 + abs(value))
            assert ends[0] - tolerance <= value <= ends[1] + tolerance


def test_interval_of_mean_has_theoretical_width():
    numbers = np.random.default_rng(3).normal(size=2000)
    low, high = interval(ratio(numbers, np.ones(2000)), 2000, resamples=4000)
    expected = 1.96 * numbers.std() / np.sqrt(2000)
    assert high - numbers.mean() == pytest.approx(expected, rel=0.06)
    assert numbers.mean() - low == pytest.approx(expected, rel=0.06)


def test_bootstrap_depends_on_seed_only():
    numbers = np.arange(50.0)
    metric = ratio(numbers, np.ones(50))
    assert interval(metric, 50) == interval(metric, 50)
    assert interval(metric, 50, seed=1) != interval(metric, 50)


def test_metrics_share_resamples():
    numbers = np.arange(50.0)
    one, two = ratio(numbers, np.ones(50)), ratio(numbers * 2, np.ones(50))
    both = bootstrap({"one": one, "two": two}, 50, resamples=300, seed=0)
    assert both["one"] == interval(one, 50, resamples=300)
    assert both["two"] == pytest.approx([2 * end for end in both["one"]])


def test_resamples_do_not_depend_on_chunk_size(monkeypatch):
    metric = ratio(np.arange(50.0), np.ones(50))
    whole = interval(metric, 50, resamples=300)
    # Chunks of 7 resamples, and a last one of 6.
    monkeypatch.setattr("moltc_vllm.evaluate.bootstrap._MAX_WEIGHTS", 50 * 7)
    assert interval(metric, 50, resamples=300) == whole


def test_metric_undefined_in_most_resamples_has_no_interval():
    rare = np.zeros(40)
    rare[0] = 1.0
    assert interval(ratio(rare, rare), 40, resamples=2000) == (1.0, 1.0)  # defined in 64 %
    # Defined only without the first row, in 36 % of the resamples.
    assert interval(lambda weights: np.where(weights[:, 0] > 0, np.nan, 1.0), 40) is None
    undefined = ratio(rare, np.zeros(40))
    assert interval(undefined, 40) is None
    assert interval(ratio(rare, rare), 40, resamples=0) is None
    assert bootstrap({"metric": undefined}, 0, resamples=10, seed=0) == {"metric": None}


def test_bootstrap_of_ten_thousand_rows_takes_seconds():
    generator = np.random.default_rng(0)
    rows = 10_000
    valid = np.ones(rows, dtype=bool)
    truth, score = generator.random(rows) < 0.5, generator.random(rows)
    label = generator.integers(0, 86, rows)
    metrics = {
        "auroc": auroc(truth, score, valid),
        "aupr": aupr(truth, score, valid),
        "r2": r2(score, generator.random(rows), valid),
        "f1": f1_of_classes(label, generator.integers(-1, 86, rows), weighted=False),
        "accuracy": ratio(truth, valid),
    }
    begin = time.process_time()
    bootstrap(metrics, rows, resamples=1000, seed=0)
    assert time.process_time() - begin < 15  # 1 s on an idle core
