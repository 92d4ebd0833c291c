"""The rule that chooses the widths of intervals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.data.dataset import read_split_rows
from moltc_vllm.data.dataset_registry import DATASETS
from moltc_vllm.data.intervals import MAX_TAIL, SPREAD_PER_WIDTH, choose_intervals
from moltc_vllm.tasks import Number, get_task
from tests.paths import data_dir

integers = st.lists(st.integers(-500, 500), min_size=20, max_size=60).filter(
    lambda v: len(set(v)) > 9
)


def mantissa(width):
    return round(width / 10 ** math.floor(math.log10(width) + 1e-9), 6)


@settings(max_examples=60, deadline=None)
@given(integers, st.integers(-6, 6))
def test_intervals_do_not_depend_on_the_unit(values, power):
    intervals = choose_intervals(values)
    scaled = choose_intervals([value * 10.0**power for value in values])
    assert scaled.scale == intervals.scale
    assert scaled.width == pytest.approx(intervals.width * 10.0**power, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(integers)
def test_linear_width_is_near_an_eighth_of_the_spread(values):
    intervals = choose_intervals(values)
    assert mantissa(intervals.width) in (1, 2, 5)
    if intervals.scale == "linear":
        # The bounds are half the largest step between 1, 2, 5 and 10 on a logarithmic scale.
        assert 1 / 1.59 < intervals.width * SPREAD_PER_WIDTH / intervals.spread < 1.59


@settings(max_examples=60, deadline=None)
@given(integers, st.integers(-10_000, 10_000))
def test_linear_width_does_not_depend_on_the_zero_point(values, shift):
    negative = [value - 600 for value in values]
    moved = [value - 11_000 + shift for value in values]
    assert choose_intervals(negative).width == choose_intervals(moved).width


@settings(max_examples=60, deadline=None)
@given(integers)
def test_intervals_do_not_depend_on_the_order(values):
    assert choose_intervals(values) == choose_intervals(values[::-1])


def test_long_tail_of_positive_values_has_growing_intervals():
    decades = list(np.geomspace(0.03, 3000, 500))
    intervals = choose_intervals(decades)
    assert (intervals.scale, intervals.width) == ("1-2-5", 0.02)  # first percentile: 0.034
    assert intervals.tail > MAX_TAIL
    assert choose_intervals([-1.0, *decades]).scale == "linear"
    exponential = -np.log(1 - np.linspace(0.0005, 0.9995, 1000))
    assert choose_intervals(exponential).scale == "linear"


def test_spread_is_the_standard_deviation_if_most_values_are_equal():
    intervals = choose_intervals([0.0] * 90 + [8.0] * 10)
    assert intervals.spread == pytest.approx(2.4)
    assert (intervals.width, intervals.scale) == (0.2, "linear")


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0], [1.0, math.nan], [1.0, math.inf]])
def test_values_without_spread_are_refused(values):
    with pytest.raises(ValueError, match="intervals need"):
        choose_intervals(values)


@pytest.mark.parametrize(
    ("source", "width", "scale"),
    [
        ("combisolv_exp", 0.5, "linear"),  # published
        ("freesolv", 0.5, "linear"),  # published
        ("deep4chem_absorption", 10, "linear"),  # published
        ("deep4chem_emission", 10, "linear"),  # published
        ("solubility", 0.2, "linear"),
        ("deep4chem_lifetime", 0.02, "1-2-5"),
        ("deep4chem_quantum_yield", 0.05, "linear"),
    ],
)
def test_intervals_of_the_staged_data(source, width, scale):
    """The train and valid splits have the same intervals."""
    spec = DATASETS[source]
    task = get_task(spec.task)
    assert isinstance(task.kind, Number)
    targets = {"train": [], "valid": [], "test": []}
    for split, row in read_split_rows(data_dir() / spec.file, task):
        if row.target is not None:
            targets[split].append(row.target)
    for split in ("train", "valid"):
        intervals = choose_intervals(targets[split])
        assert (intervals.width, intervals.scale) == (width, scale)
