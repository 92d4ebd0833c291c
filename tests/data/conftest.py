"""One small folder of real data for the tests of this room."""

import pytest

from tests.data.small import small_data


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Some rows of every staged file; not to be written to."""
    return small_data(tmp_path_factory.mktemp("data") / "small")
