"""Helpers for tests that write a small file and read it as a table."""

import pytest


@pytest.fixture
def write(tmp_path):
    """Write a file with a name and content, and return its path."""

    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file
