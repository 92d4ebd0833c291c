"""Reading files that are not pickles, with the cause in one line if it cannot be done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from moltc_vllm.models.weights import WeightsError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        WeightsError: If there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise WeightsError(f"{path} does not exist")
    try:
        raw = json.loads(path.read_text())
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise WeightsError(f"{path} is not a JSON object")
    return raw


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all of a safetensors file.

    Raises:
        WeightsError: If it is damaged.
    """
    try:
        return load_file(path)
    except Exception as error:  # safetensors has one error class for all defects
        raise WeightsError(f"{path} cannot be read: {error}") from error
