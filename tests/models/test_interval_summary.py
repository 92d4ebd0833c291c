"""The compiled summary equals the array operations."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moltc_vllm.models.interval_summary import summarize_intervals
from moltc_vllm.tasks import get_task
from moltc_vllm.tasks.interval_distribution import (
    half_widths,
    mean_positions,
    standard_deviations,
)

KIND = get_task("lifetime").kind
COUNT = len(KIND.intervals())


@settings(deadline=None)  # the first call compiles
@given(arrays(np.float64, COUNT, elements=st.floats(-40, 0)))
@example(np.array([0.0] + [-np.inf] * (COUNT - 1)))
@example(np.array([-np.inf] * (COUNT - 1) + [0.0]))
def test_summary_equals_array_operations(logs):
    weights = np.exp(logs)
    probabilities = (weights / weights.sum())[None]
    positions = mean_positions(probabilities)
    lower, upper = half_widths(probabilities, positions)
    value = KIND.value_at(float(positions[0]))
    summary = summarize_intervals(KIND, logs)
    assert summary.position == pytest.approx(positions[0])
    assert summary.lower == pytest.approx(lower[0], abs=1e-6)
    assert summary.upper == pytest.approx(upper[0], abs=1e-6)
    assert summary.value == pytest.approx(value)
    expected = standard_deviations(KIND, probabilities, np.array([value]))[0]
    assert summary.deviation == pytest.approx(expected, rel=1e-6, abs=1e-3)
    assert summary.likeliest == pytest.approx(probabilities.max())
