"""Calibration: bins of equal mass and the expected calibration error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.evaluate.bootstrap import bootstrap
from moltc_vllm.evaluate.calibration import bins_of_equal_mass, calibrate


def calibrate_all(confidence, hit):
    confidence, hit = np.array(confidence, dtype=float), np.array(hit, dtype=bool)
    return calibrate(confidence, hit, np.ones(len(hit), dtype=bool))


def test_bins_have_equal_mass():
    confidence = np.random.default_rng(0).permutation(np.linspace(0, 1, 1003) ** 3)
    bins = bins_of_equal_mass(confidence)
    assert set(np.bincount(bins)) <= {100, 101}
    order = np.argsort(confidence)
    assert (np.diff(bins[order]) >= 0).all()


def test_bins_of_few_confidences():
    assert list(bins_of_equal_mass(np.array([0.3, 0.1, 0.2]))) == [2, 0, 1]
    assert not bins_of_equal_mass(np.empty(0)).size


def test_equal_confidences_share_a_bin():
    assert list(bins_of_equal_mass(np.full(50, 0.7))) == [0] * 50
    # The middle of a group of equal confidences decides its bin.
    assert list(bins_of_equal_mass(np.array([0.1, *[0.5] * 98, 0.9]))) == [0, *[1] * 98, 2]
    assert list(bins_of_equal_mass(np.array([0.9] * 30 + [0.2] * 5 + [0.9] * 3))) == (
        [1] * 30 + [0] * 5 + [1] * 3
    )


def test_calibrate_computes_bins_and_error():
    error, table = calibrate_all([0.9, 0.9, 0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0, 0, 1])
    assert [(entry.rows, entry.hit_rate) for entry in table] == [(2, 0.5), (4, 0.75)]
    assert [entry.confidence for entry in table] == pytest.approx([0.6, 0.9])
    assert error.value == pytest.approx((2 * 0.1 + 4 * 0.15) / 6)
    assert error.rows == 6


def test_perfectly_calibrated_answers_have_no_error():
    """Each of ten confidences has exactly its fraction of right answers."""
    confidence, hit = [], []
    for tenths in range(1, 11):
        confidence += [tenths / 10] * 100
        hit += [True] * (10 * tenths) + [False] * (100 - 10 * tenths)
    error, table = calibrate_all(confidence, hit)
    assert error.value == pytest.approx(0, abs=1e-12)
    assert len(table) == 10
    for entry in table:
        assert entry.confidence == pytest.approx(entry.hit_rate)
    # Confidence 1 with 55 % right answers.
    assert calibrate_all([1.0] * 1000, hit)[0].value == pytest.approx(0.45)


def test_calibrated_random_answers_have_small_error():
    generator = np.random.default_rng(1)
    confidence = generator.random(20_000)
    hit = generator.random(20_000) < confidence
    assert calibrate_all(confidence, hit)[0].value < 0.015
    assert calibrate_all(confidence, ~hit)[0].value > 0.4


def test_rows_without_confidence_are_left_out():
    valid = np.array([True, False, True])
    error, table = calibrate(np.array([0.5, np.nan, 0.5]), np.array([1, 0, 0], bool), valid)
    assert (error.value, error.rows, len(table)) == (0.0, 2, 1)
    undefined, table = calibrate(np.full(3, np.nan), np.zeros(3, bool), np.zeros(3, bool))
    assert (undefined.value, undefined.reason, table) == (None, "no answer has a confidence", [])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.25, 0.5, 0.7, 0.99]), st.booleans()), min_size=1),
    st.randoms(),
)
def test_calibration_does_not_depend_on_row_order(rows, random):
    error, table = calibrate_all(*zip(*rows, strict=True))
    random.shuffle(rows)
    shuffled_error, shuffled_table = calibrate_all(*zip(*rows, strict=True))
    assert error.value == pytest.approx(shuffled_error.value, abs=1e-12)
    assert [(entry.rows, entry.hit_rate) for entry in table] == [
        (entry.rows, entry.hit_rate) for entry in shuffled_table
    ]
    assert 0 <= error.value <= 1


def test_interval_of_single_bin_is_that_of_its_gap():
    """With 70 % right answers at confidence 0.9, the gap is 0.2 with a half-width of 0.09."""
    error, _ = calibrate_all([0.9] * 100, [True] * 70 + [False] * 30)
    metrics = {"error": error.bootstrap_metric}
    ends = bootstrap(metrics, 100, resamples=4000, seed=0)["error"]
    assert ends == pytest.approx((0.2 - 0.09, 0.2 + 0.09), abs=0.015)
