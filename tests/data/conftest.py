"""Fixtures of the data tests: a small folder of real data."""

import pytest

from tests.data.small import small_data


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Folder with some rows of every staged file; tests must not write to it."""
    return small_data(tmp_path_factory.mktemp("data") / "small")
