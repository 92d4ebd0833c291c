"""Calibration: bins of equal mass, and an error that means something."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.evaluate.bootstrap import bootstrap
from moltc_vllm.evaluate.calibration import bins_of_equal_mass, calibrate


def all_of(confidence, hit):
    confidence, hit = np.array(confidence, dtype=float), np.array(hit, dtype=bool)
    return calibrate(confidence, hit, np.ones(len(hit), dtype=bool))


def test_bins_have_equal_mass():
    confidence = np.random.default_rng(0).permutation(np.linspace(0, 1, 1003) ** 3)
    bins = bins_of_equal_mass(confidence)
    assert set(np.bincount(bins)) <= {100, 101}
    order = np.argsort(confidence)
    assert (np.diff(bins[order]) >= 0).all()
    assert list(bins_of_equal_mass(np.array([0.3, 0.1, 0.2]))) == [2, 0, 1]
    assert not bins_of_equal_mass(np.empty(0)).size


def test_equal_confidences_stay_together():
    assert list(bins_of_equal_mass(np.full(50, 0.7))) == [0] * 50
    # A group is where its middle is, not where it begins.
    assert list(bins_of_equal_mass(np.array([0.1, *[0.5] * 98, 0.9]))) == [0, *[1] * 98, 2]
    assert list(bins_of_equal_mass(np.array([0.9] * 30 + [0.2] * 5 + [0.9] * 3))) == (
        [1] * 30 + [0] * 5 + [1] * 3
    )


def test_by_hand():
    error, table = all_of([0.9, 0.9, 0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0, 0, 1])
    assert [(one.rows, one.hit_rate) for one in table] == [(2, 0.5), (4, 0.75)]
    assert [one.confidence for one in table] == pytest.approx([0.6, 0.9])
    assert error.value == pytest.approx((2 * 0.1 + 4 * 0.15) / 6)
    assert error.rows == 6


def test_who_is_right_as_often_as_he_says_has_no_error():
    """Ten confidences, each with exactly its share of right answers."""
    confidence, hit = [], []
    for tenths in range(1, 11):
        confidence += [tenths / 10] * 100
        hit += [True] * (10 * tenths) + [False] * (100 - 10 * tenths)
    error, table = all_of(confidence, hit)
    assert error.value == pytest.approx(0, abs=1e-12)
    assert len(table) == 10
    for one in table:
        assert one.confidence == pytest.approx(one.hit_rate)
    # Sure of everything and right in 55 %.
    assert all_of([1.0] * 1000, hit)[0].value == pytest.approx(0.45)


def test_who_is_right_by_chance_as_often_as_he_says_has_little():
    generator = np.random.default_rng(1)
    confidence = generator.random(20_000)
    hit = generator.random(20_000) < confidence
    assert all_of(confidence, hit)[0].value < 0.015
    assert all_of(confidence, ~hit)[0].value > 0.4


def test_rows_without_confidence_are_left_out():
    there = np.array([True, False, True])
    error, table = calibrate(np.array([0.5, np.nan, 0.5]), np.array([1, 0, 0], bool), there)
    assert (error.value, error.rows, len(table)) == (0.0, 2, 1)
    nothing, table = calibrate(np.full(3, np.nan), np.zeros(3, bool), np.zeros(3, bool))
    assert (nothing.value, nothing.reason, table) == (None, "no answer has a confidence", [])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.25, 0.5, 0.7, 0.99]), st.booleans()), min_size=1),
    st.randoms(),
)
def test_the_order_of_rows_does_not_matter(rows, random):
    value, table = all_of(*zip(*rows, strict=True))
    random.shuffle(rows)
    other, again = all_of(*zip(*rows, strict=True))
    assert value.value == pytest.approx(other.value, abs=1e-12)
    assert [(one.rows, one.hit_rate) for one in table] == [(a.rows, a.hit_rate) for a in again]
    assert 0 <= value.value <= 1


def test_the_interval_of_one_bin_is_that_of_its_gap():
    """Ties must not be parted: 70 % right at confidence 0.9 is off by 0.2, give or take 0.09."""
    error, _ = all_of([0.9] * 100, [True] * 70 + [False] * 30)
    ends = bootstrap({"it": error.resampled}, 100, resamples=4000, seed=0)["it"]
    assert ends == pytest.approx((0.2 - 0.09, 0.2 + 0.09), abs=0.015)
