"""Readers of JSON and safetensors files that raise `WeightsError` with a one-line message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from moltc_vllm.models.weights import WeightsError
from moltc_vllm.utils.errors import one_line
from moltc_vllm.utils.json_objects import read_json_object


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Raises:
        WeightsError: If the file is missing, is not JSON or holds something else.
    """
    try:
        return read_json_object(path)
    except ValueError as error:
        raise WeightsError(str(error)) from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        WeightsError: If the file cannot be read.
    """
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises one class for all defects
        raise WeightsError(f"{path} cannot be read: {one_line(error)}") from error
