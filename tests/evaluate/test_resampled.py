"""Metrics of many resamples at once are scikit-learn's of each resample."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from moltc_vllm.evaluate.bootstrap_metrics import (
    aupr,
    auroc,
    calibration_error,
    f1_of_classes,
    r2,
    ratio,
)

seeds = st.integers(0, 2**32 - 1)


def resamples(generator, rows, count=6):
    """Weights, and the rows that each resample has."""
    places = generator.integers(0, rows, size=(count, rows))
    weights = np.stack([np.bincount(row, minlength=rows) for row in places]).astype(float)
    return weights, places


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 60), st.sampled_from([3, 1000]))
@pytest.mark.parametrize(
    ("ours", "theirs"), [(auroc, sk.roc_auc_score), (aupr, sk.average_precision_score)]
)
def test_curves(ours, theirs, seed, rows, different_scores):
    generator = np.random.default_rng(seed)
    truth = generator.random(rows) < 0.4
    score = generator.integers(0, different_scores, rows) / different_scores  # ties, too
    there = generator.random(rows) < 0.8
    weights, places = resamples(generator, rows)
    for value, drawn in zip(ours(truth, score, there)(weights), places, strict=True):
        drawn = drawn[there[drawn]]
        if len(set(truth[drawn])) < 2:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(theirs(truth[drawn], score[drawn]), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 60), st.integers(2, 9))
def test_f1_of_classes(seed, rows, classes):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, rows)
    answered = np.where(generator.random(rows) < 0.6, truth, generator.integers(-1, classes, rows))
    weights, places = resamples(generator, rows)
    for average in ("macro", "weighted"):
        values = f1_of_classes(truth, answered, weighted=average == "weighted")(weights)
        for value, drawn in zip(values, places, strict=True):
            present = sorted((set(truth[drawn]) | set(answered[drawn])) - {-1})
            expected = sk.f1_score(
                truth[drawn], answered[drawn], labels=present, average=average, zero_division=0
            )
            assert value == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 60), st.sampled_from([0.0, 300.0, 1e6]))
def test_r2(seed, rows, offset):
    generator = np.random.default_rng(seed)
    target = offset + np.round(generator.normal(size=rows), 1)
    value = target + generator.normal(size=rows)
    there = generator.random(rows) < 0.8
    value[~there] = np.nan
    weights, places = resamples(generator, rows)
    for found, drawn in zip(r2(target, value, there)(weights), places, strict=True):
        drawn = drawn[there[drawn]]
        if len(set(target[drawn])) < 2:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(sk.r2_score(target[drawn], value[drawn]), rel=1e-6)


def test_r2_of_equal_targets_is_not_what_rounding_leaves():
    for rows in range(2, 80):
        target = np.array([0.1] * rows + [5.0])
        weights = np.array([[1.0] * rows + [0.0], [1.0] * rows + [1.0]])
        found = r2(target, target + 1, np.ones(rows + 1, dtype=bool))(weights)
        assert np.isnan(found[0])
        assert found[1] == pytest.approx(sk.r2_score(target, target + 1))


def test_ratio_and_its_missing_values():
    above, below = np.array([1.0, 0.0, 4.0]), np.array([True, True, False])
    weights = np.array([[1.0, 1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]])
    np.testing.assert_array_equal(ratio(above, below)(weights), [0.5, 0.0, np.nan])


def test_calibration_error_of_weights_is_that_of_repeated_rows():
    bins = np.array([0, 0, 1, 1])
    gap = np.array([0.2, -0.8, 0.9, -0.1])
    there = np.array([True, True, False, True, True])
    weights = np.array([[1.0, 1, 7, 1, 1], [2, 0, 0, 1, 0], [0, 0, 5, 0, 0]])
    found = calibration_error(bins, gap, there)(weights)
    np.testing.assert_allclose(found, [(0.6 + 0.8) / 4, (0.4 + 0.9) / 3, np.nan])


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(4, 50))
def test_auroc_sees_only_the_order_of_scores(seed, rows):
    generator = np.random.default_rng(seed)
    truth = generator.random(rows) < 0.5
    assume(0 < truth.sum() < rows)
    score = generator.integers(0, 20, rows) / 20.0
    there = np.ones(rows, dtype=bool)
    weights, _ = resamples(generator, rows)
    expected = auroc(truth, score, there)(weights)
    for transformed in (3 * score - 7, np.exp(5 * score), score**3):
        np.testing.assert_array_equal(auroc(truth, transformed, there)(weights), expected)
    np.testing.assert_allclose(auroc(truth, -score, there)(weights), 1 - expected, atol=1e-12)
