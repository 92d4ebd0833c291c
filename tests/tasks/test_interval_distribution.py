"""Value, spread and quantiles of distributions over intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.interval_distribution import (
    MIN_HALF_WIDTH,
    conformity_scores,
    half_widths,
    mean_positions,
    quantile_positions,
    standard_deviations,
)

WEIGHTS = arrays(np.float64, (3, 11), elements=st.floats(0.001, 1000))
QUANTUM_YIELD = get_task("quantum_yield").kind


def normalized(weights):
    return weights / weights.sum(axis=1, keepdims=True)


def test_quantiles_of_an_even_distribution_are_evenly_spaced():
    even = np.full((1, 10), 0.1)
    for level in (0.05, 0.1, 0.33, 0.9):
        assert quantile_positions(even, level) == pytest.approx(10 * level)
    assert mean_positions(even) == pytest.approx(5.0)


def test_quantile_is_interpolated_inside_its_interval():
    probabilities = np.array([[0.0, 0.5, 0.5, 0.0]])
    assert quantile_positions(probabilities, 0.1) == pytest.approx(1.2)
    assert quantile_positions(probabilities, 0.5) == pytest.approx(2.0)
    assert quantile_positions(probabilities, 0.9) == pytest.approx(2.8)


@given(WEIGHTS, st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_quantiles_ascend_with_the_level_and_are_positions(weights, first, second):
    probabilities = normalized(weights)
    low, high = sorted((first, second))
    lower, upper = (quantile_positions(probabilities, level) for level in (low, high))
    assert (lower <= upper + 1e-9).all()
    assert (lower >= 0).all()
    assert (upper <= 11).all()


@given(WEIGHTS, st.floats(0.02, 0.98))
def test_probability_below_a_quantile_is_its_level(weights, level):
    probabilities = normalized(weights)
    for row, position in zip(probabilities, quantile_positions(probabilities, level), strict=True):
        index = min(int(position), 10)
        below = row[:index].sum() + row[index] * (position - index)
        assert below == pytest.approx(level, abs=1e-9)


@given(WEIGHTS)
def test_half_widths_are_positive_and_reach_the_quantiles(weights):
    probabilities = normalized(weights)
    positions = mean_positions(probabilities)
    lower, upper = half_widths(probabilities, positions)
    assert (lower >= MIN_HALF_WIDTH).all()
    assert (upper >= MIN_HALF_WIDTH).all()
    assert (positions - lower <= quantile_positions(probabilities, 0.1) + 1e-9).all()
    assert (positions + upper >= quantile_positions(probabilities, 0.9) - 1e-9).all()


@given(WEIGHTS, arrays(np.float64, 3, elements=st.floats(0, 11)))
def test_score_is_the_factor_at_which_the_interval_reaches_the_target(weights, targets):
    probabilities = normalized(weights)
    positions = mean_positions(probabilities)
    lower, upper = half_widths(probabilities, positions)
    scores = conformity_scores(positions, targets, (lower, upper))
    assert (scores >= 0).all()
    assert (positions - (scores + 1e-9) * lower <= targets).all()
    assert (targets <= positions + (scores + 1e-9) * upper).all()


def test_standard_deviation_of_one_interval_is_that_of_its_width():
    probabilities = np.zeros((1, 11))
    probabilities[0, 3] = 1.0
    deviation = standard_deviations(QUANTUM_YIELD, probabilities, np.array([0.35]))
    assert deviation == pytest.approx(0.1 / 12**0.5)
    # The last interval has no part above 1, where there are no quantum yields.
    probabilities = probabilities[:, ::-1] * 0
    probabilities[0, 10] = 1.0
    assert standard_deviations(QUANTUM_YIELD, probabilities, np.array([1.0])) == pytest.approx(0.0)


def test_standard_deviation_equals_that_of_samples():
    generator = np.random.default_rng(0)
    probabilities = normalized(generator.random((1, 11)) * np.r_[np.ones(10), 0])
    intervals = generator.choice(11, 200_000, p=probabilities[0])
    samples = (intervals + generator.random(200_000)) * 0.1
    value = float(samples.mean())
    deviation = standard_deviations(QUANTUM_YIELD, probabilities, np.array([value]))
    assert deviation == pytest.approx(samples.std(), rel=0.01)
