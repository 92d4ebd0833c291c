"""Parameters of calibrated answers, and their file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltc_vllm.models.calibration import (
    CALIBRATION_FILE,
    Calibration,
    GroupCalibration,
    TaskCalibration,
    group_names,
    load_calibration,
    write_calibration,
)
from moltc_vllm.models.errors import CheckpointError

GROUP = GroupCalibration(rows=999, scores=(0.0, 0.5, 1.0, 2.0, 6.0))


@given(st.floats(0, 1), st.floats(0, 3), st.floats(-5, 5), st.floats(-5, 5), st.integers(0, 1))
def test_confidence_of_a_label_is_at_least_that_of_guessing(
    probability, slope, offset, tilt, label
):
    group = GroupCalibration(rows=1, slope=slope, offset=offset, tilt=tilt)
    assert 0.5 <= group.confidence(probability, label, 2) <= 1
    assert 1 / 86 <= group.confidence(probability, label, 86) <= 1
    assert 0 <= group.confidence(probability) <= 1


@given(st.floats(0, 1), st.floats(0, 1))
def test_confidence_ascends_with_the_probability(first, second):
    group = GroupCalibration(rows=1, slope=0.7, offset=-0.3)
    low, high = sorted((first, second))
    assert group.confidence(low) <= group.confidence(high)


def test_confidence_is_the_probability_without_parameters():
    group = GroupCalibration(rows=1)
    for probability in (0.2, 0.5, 0.93):
        assert group.confidence(probability) == pytest.approx(probability)
        assert group.confidence(max(probability, 0.5), 1, 2) == pytest.approx(max(probability, 0.5))


def test_confidence_no_better_than_guessing_keeps_the_order():
    group = GroupCalibration(rows=1, offset=-4.0)
    low, high = group.confidence(0.6, 1, 2), group.confidence(0.9, 1, 2)
    assert 0.5 < low < high < 0.501


def test_tilt_favors_the_second_of_two_labels():
    group = GroupCalibration(rows=1, tilt=0.5)
    assert group.confidence(0.8, 1, 2) > 0.8 > group.confidence(0.8, 0, 2)
    assert group.confidence(0.8, 1, 3) == pytest.approx(0.8)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_score_ascends_with_the_coverage(first, second):
    low, high = sorted((first, second))
    assert GROUP.score(low) <= GROUP.score(high)


def test_score_is_a_quantile_that_counts_the_new_pair():
    assert GROUP.score(0.5) == pytest.approx(1.0, abs=0.01)
    few = GroupCalibration(rows=4, scores=(0.0, 1.0, 2.0, 3.0, 4.0))
    assert few.score(0.5) == 3.0  # rank 3 of 4, not 2
    assert few.score(0.99) == 4.0  # more than four pairs can tell


def test_smallest_fitted_group_is_used():
    known, unlike, mixed = (GroupCalibration(rows=rows) for rows in (1, 2, 3))
    everything = GroupCalibration(rows=9)
    groups = {"all": everything, "known": known, "unlike": unlike, "unlike+known": mixed}
    task = TaskCalibration(groups=groups)
    assert task.find(("known", "known")) is known
    assert task.find(("unlike", "known")) is mixed
    assert task.find(("known", "unlike")) is unlike
    assert task.find(("similar", "known")) is everything
    assert task.find(()) is everything


def test_group_names_of_symmetric_tasks_ignore_the_order():
    names = [
        list(group_names(pair, symmetric=True))
        for pair in (("unlike", "known"), ("known", "unlike"))
    ]
    assert names[0] == names[1] == ["known+unlike", "unlike", "all"]


def test_file_round_trips(tmp_path):
    calibration = Calibration(
        fitted_on={"model": "m"}, tasks={"ddi": TaskCalibration(groups={"all": GROUP})}
    )
    write_calibration(tmp_path, calibration)
    assert load_calibration(tmp_path) == calibration


def test_folder_without_a_file_has_no_calibration(tmp_path):
    assert load_calibration(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ('{"version": 2}', "version: Input should be 1"),
        ('{"tasks": {"ddi": {"groups": {}}}}', "'all' is missing"),
        ('{"tasks": {"ddi": {"groups": {"all": {"rows": 1, "scores": [2, 1]}}}}}', "ascending"),
        ('{"tasks": {"ddi": {"groups": {"all": {"rows": 1, "scores": [-1, 1]}}}}}', "negative"),
        ('{"tasks": {"ddi": {"groups": {"all": {"rows": 1, "slope": -1}}}}}', "greater than"),
        ('{"temperature": 1}', "Extra inputs"),
    ],
)
def test_invalid_file_is_an_error_that_names_it(tmp_path, text, reason):
    (tmp_path / CALIBRATION_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=reason) as error:
        load_calibration(tmp_path)
    assert CALIBRATION_FILE in str(error.value)
    assert "\n" not in str(error.value)
