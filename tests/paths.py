"""Folders of the staged data and of the reference fixture; tests without them are skipped."""

import os
from pathlib import Path

import pytest

_SHARED = Path(__file__).parents[2] / "shared"


def data_dir() -> Path:
    """Return the folder of the staged datasets (environment variable ``MOLTC_DATA``)."""
    return _existing_or_skip("MOLTC_DATA", _SHARED / "data")


def reference_dir() -> Path:
    """Return the folder of the published model's fixture (variable ``MOLTC_FIXTURES``)."""
    return _existing_or_skip("MOLTC_FIXTURES", _SHARED / "fixtures" / "reference")


def _existing_or_skip(variable: str, default: Path) -> Path:
    path = Path(os.environ.get(variable, default))
    if not path.is_dir():
        pytest.skip(f"{path} does not exist; set {variable}")
    return path
