"""Where the staged data and the reference fixtures are."""

import os
from pathlib import Path

import pytest

_SHARED = Path(__file__).parents[2] / "shared"


def data_dir() -> Path:
    """The staged datasets (env ``MOLTC_DATA``); skips the test where there are none."""
    return _existing("MOLTC_DATA", _SHARED / "data")


def reference_dir() -> Path:
    """The published model's fixture (env ``MOLTC_FIXTURES``); skips where there is none."""
    return _existing("MOLTC_FIXTURES", _SHARED / "fixtures" / "reference")


def _existing(variable: str, default: Path) -> Path:
    path = Path(os.environ.get(variable, default))
    if not path.is_dir():
        pytest.skip(f"{path} does not exist; set {variable}")
    return path
