"""Interpret kernels in test processes, except in those that run the tests that need a GPU."""

import pytest

from tests.conftest import selects_gpu
from tests.kernels.interpreter import import_kernels


def pytest_configure(config: pytest.Config) -> None:
    if not selects_gpu(config):
        import_kernels()
