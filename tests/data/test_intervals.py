"""The rule for the widths of intervals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moltc_vllm.data.dataset import read_split_rows
from moltc_vllm.data.datasets import DATASETS
from moltc_vllm.data.intervals import LONGEST_TAIL, SPREAD_PER_WIDTH, choose_intervals
from moltc_vllm.tasks import Number, get_task
from tests.paths import data_dir

whole = st.lists(st.integers(-500, 500), min_size=20, max_size=60).filter(lambda v: len(set(v)) > 9)


def mantissa(width):
    return round(width / 10 ** math.floor(math.log10(width) + 1e-9), 6)


@settings(max_examples=60, deadline=None)
@given(whole, st.integers(-6, 6))
def test_a_unit_does_not_matter(values, power):
    """Kilocalories or calories: the same intervals."""
    here = choose_intervals(values)
    there = choose_intervals([value * 10.0**power for value in values])
    assert there.scale == here.scale
    assert there.width == pytest.approx(here.width * 10.0**power, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(whole)
def test_equal_widths_are_near_an_eighth_of_the_spread(values):
    found = choose_intervals(values)
    assert mantissa(found.width) in (1, 2, 5)
    if found.scale == "linear":
        # Half the largest step between 1, 2, 5 and 10, on a logarithmic scale.
        assert 1 / 1.59 < found.width * SPREAD_PER_WIDTH / found.spread < 1.59


@settings(max_examples=60, deadline=None)
@given(whole, st.integers(-10_000, 10_000))
def test_a_zero_point_does_not_matter_to_equal_widths(values, shift):
    negative = [value - 600 for value in values]
    moved = [value - 11_000 + shift for value in values]
    assert choose_intervals(negative).width == choose_intervals(moved).width


@settings(max_examples=60, deadline=None)
@given(whole)
def test_the_order_does_not_matter(values):
    assert choose_intervals(values) == choose_intervals(values[::-1])


def test_a_long_tail_of_positive_values_has_growing_intervals():
    decades = list(np.geomspace(0.03, 3000, 500))
    found = choose_intervals(decades)
    assert (found.scale, found.width) == ("1-2-5", 0.02)  # first percentile: 0.034
    assert found.tail > LONGEST_TAIL
    assert choose_intervals([-1.0, *decades]).scale == "linear"
    exponential = -np.log(1 - np.linspace(0.0005, 0.9995, 1000))
    assert choose_intervals(exponential).scale == "linear"


def test_more_than_half_of_the_values_the_same():
    found = choose_intervals([0.0] * 90 + [8.0] * 10)
    assert found.spread == pytest.approx(2.4)
    assert (found.width, found.scale) == (0.2, "linear")


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0], [1.0, math.nan], [1.0, math.inf]])
def test_no_spread_is_an_error(values):
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
def test_the_staged_data(source, width, scale):
    """The train part and the valid part have the same intervals."""
    one = DATASETS[source]
    task = get_task(one.task)
    assert isinstance(task.kind, Number)
    parts = {"train": [], "valid": [], "test": []}
    for split, row in read_split_rows(data_dir() / one.file, task):
        if row.target is not None:
            parts[split].append(row.target)
    for split in ("train", "valid"):
        found = choose_intervals(parts[split])
        assert (found.width, found.scale) == (width, scale)
