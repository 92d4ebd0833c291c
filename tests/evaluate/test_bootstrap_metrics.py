"""Metrics of many resamples, compared with scikit-learn's metric of each resample."""

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


def draw_resamples(generator, rows, count=6):
    """Return the weights of some resamples, and the row indices of each."""
    indices = generator.integers(0, rows, size=(count, rows))
    weights = np.stack([np.bincount(row, minlength=rows) for row in indices]).astype(float)
    return weights, indices


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 60), st.sampled_from([3, 1000]))
@pytest.mark.parametrize(
    ("ours", "sklearn_metric"), [(auroc, sk.roc_auc_score), (aupr, sk.average_precision_score)]
)
def test_auroc_and_aupr_equal_sklearn(ours, sklearn_metric, seed, rows, distinct_scores):
    generator = np.random.default_rng(seed)
    truth = generator.random(rows) < 0.4
    score = generator.integers(0, distinct_scores, rows) / distinct_scores  # includes ties
    valid = generator.random(rows) < 0.8
    weights, resamples = draw_resamples(generator, rows)
    for value, indices in zip(ours(truth, score, valid)(weights), resamples, strict=True):
        indices = indices[valid[indices]]
        if len(set(truth[indices])) < 2:
            assert np.isnan(value)
        else:
            expected = sklearn_metric(truth[indices], score[indices])
            assert value == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 60), st.integers(2, 9))
def test_f1_of_classes_equals_sklearn(seed, rows, classes):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, rows)
    answered = np.where(generator.random(rows) < 0.6, truth, generator.integers(-1, classes, rows))
    weights, resamples = draw_resamples(generator, rows)
    for average in ("macro", "weighted"):
        values = f1_of_classes(truth, answered, weighted=average == "weighted")(weights)
        for value, indices in zip(values, resamples, strict=True):
            present = sorted((set(truth[indices]) | set(answered[indices])) - {-1})
            expected = sk.f1_score(
                truth[indices],
                answered[indices],
                labels=present,
                average=average,
                zero_division=0,
            )
            assert value == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 60), st.sampled_from([0.0, 300.0, 1e6]))
def test_r2_equals_sklearn(seed, rows, offset):
    generator = np.random.default_rng(seed)
    target = offset + np.round(generator.normal(size=rows), 1)
    value = target + generator.normal(size=rows)
    valid = generator.random(rows) < 0.8
    value[~valid] = np.nan
    weights, resamples = draw_resamples(generator, rows)
    for result, indices in zip(r2(target, value, valid)(weights), resamples, strict=True):
        indices = indices[valid[indices]]
        if len(set(target[indices])) < 2:
            assert np.isnan(result)
        else:
            expected = sk.r2_score(target[indices], value[indices])
            assert result == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rows", range(2, 80))
def test_r2_of_equal_targets_is_undefined_despite_rounding(rows):
    target = np.array([0.1] * rows + [5.0])
    weights = np.array([[1.0] * rows + [0.0], [1.0] * rows + [1.0]])
    equal, different = r2(target, target + 1, np.ones(rows + 1, dtype=bool))(weights)
    assert np.isnan(equal)
    assert different == pytest.approx(sk.r2_score(target, target + 1))


def test_ratio_is_undefined_where_denominator_is_zero():
    numerator, denominator = np.array([1.0, 0.0, 4.0]), np.array([True, True, False])
    weights = np.array([[1.0, 1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]])
    np.testing.assert_array_equal(ratio(numerator, denominator)(weights), [0.5, 0.0, np.nan])


def test_calibration_error_of_weights_equals_repeated_rows():
    bins = np.array([0, 0, 1, 1])
    gap = np.array([0.2, -0.8, 0.9, -0.1])
    valid = np.array([True, True, False, True, True])
    weights = np.array([[1.0, 1, 7, 1, 1], [2, 0, 0, 1, 0], [0, 0, 5, 0, 0]])
    values = calibration_error(bins, gap, valid)(weights)
    np.testing.assert_allclose(values, [(0.6 + 0.8) / 4, (0.4 + 0.9) / 3, np.nan])


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(4, 50))
def test_auroc_depends_on_order_of_scores_only(seed, rows):
    generator = np.random.default_rng(seed)
    truth = generator.random(rows) < 0.5
    assume(0 < truth.sum() < rows)
    score = generator.integers(0, 20, rows) / 20.0
    valid = np.ones(rows, dtype=bool)
    weights, _ = draw_resamples(generator, rows)
    expected = auroc(truth, score, valid)(weights)
    for transformed in (3 * score - 7, np.exp(5 * score), score**3):
        np.testing.assert_array_equal(auroc(truth, transformed, valid)(weights), expected)
    np.testing.assert_allclose(auroc(truth, -score, valid)(weights), 1 - expected, atol=1e-12)
