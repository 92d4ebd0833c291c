"""Warnings about renamed options and names."""

import pytest

from moltc_vllm.utils.deprecation import REMOVED_IN, warn_renamed


def old_function():
    warn_renamed("function old_function", "new_function")


def test_warn_renamed_names_both_and_points_to_the_caller():
    with pytest.warns(FutureWarning) as warnings:
        old_function()
    (warning,) = warnings
    assert str(warning.message) == (
        "function old_function was renamed to new_function; the old name stops working in version "
        f"{REMOVED_IN}"
    )
    assert warning.filename == __file__
